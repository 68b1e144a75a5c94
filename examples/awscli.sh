#!/usr/bin/env bash
# Speaks to Everpoint with the AWS CLI, unmodified: the calls of a first campaign,
# and ten mistakes, each of which must come back as the exception that the CLI
# knows, with a message that says what is wrong.
#
#   examples/run.sh --do examples/awscli.sh [AWS...]
#
# or, against a Region that runs, after reading its local.env into the shell.
# AWS is an `aws` command to use; without one every different one that is found
# is used: Debian's and that of PATH. As root on Debian it installs the package
# awscli when that is missing. Prints a line for each check; the first that fails
# ends it.
set -euo pipefail
: "${AWS_ENDPOINT_URL:?read local.env of an everpoint local into the shell first}"
: "${EVERPOINT_ACCOUNT_ID:?}" "${EVERPOINT_BUCKETS:?}" "${EVERPOINT_OUTBOX_URL:?}"

wait_seconds_max=60 # for a job or a campaign
debian=/usr/bin/aws

if [[ $# -gt 0 ]]; then
  clis=("$@")
else
  if [[ ! -x $debian && $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "installing the Debian package awscli"
    apt-get update -qq </dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends awscli </dev/null >/dev/null
  fi
  clis=()
  for cli in "$debian" "$(command -v aws || true)"; do
    if [[ -x $cli && " ${clis[*]-} " != *" $cli "* ]]; then clis+=("$cli"); fi
  done
fi
[[ ${#clis[@]} -gt 0 ]] || {
  echo "awscli.sh: no aws command found: install one (Debian: apt-get install awscli)" >&2
  exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
# The user's own settings stay out of it. The second file lets mistakes through
# that the CLI would find itself.
: >"$scratch/config"
printf '[default]\nparameter_validation = false\n' >"$scratch/lax"
export AWS_CONFIG_FILE=$scratch/config AWS_SHARED_CREDENTIALS_FILE=$scratch/none AWS_PAGER='' AWS_EC2_METADATA_DISABLED=true

ep() {
  "$aws" --endpoint-url "$AWS_ENDPOINT_URL" ${AWS_CA_BUNDLE:+--ca-bundle "$AWS_CA_BUNDLE"} --region "$AWS_REGION" pinpoint "$@"
}

fail() {
  printf 'FAILED  %s\n%s\n' "$1" "$2" >&2
  exit 1
}

# gives NAME PATTERN ARGS... calls ep ARGS and keeps what it prints in got, which
# must match the pattern.
gives() {
  local name=$1 pattern=$2
  shift 2
  if ! got=$(ep "$@" 2>"$scratch/stderr"); then fail "$name" "$(cat "$scratch/stderr")"; fi
  [[ $got =~ $pattern ]] || fail "$name" "got:  $got"$'\n'"want: $pattern"
  echo "ok      $name"
}

# refuses NAME EXCEPTION PATTERN ARGS... expects the exception, and a message that
# matches the pattern.
refuses() {
  local name=$1 exception=$2 pattern=$3 text
  shift 3
  if text=$(ep "$@" 2>&1); then fail "$name" "it was accepted: $text"; fi
  [[ $text =~ "An error occurred ($exception) when calling the "[A-Za-z]+" operation"[^:]*": "(.*) ]] ||
    fail "$name" "got:  $text"$'\n'"want: $exception"
  text=${BASH_REMATCH[1]}
  [[ $text =~ $pattern ]] || fail "$name" "got:  $text"$'\n'"want: $pattern"
  echo "ok      $name: $exception: $text"
}

# until_is WHAT WANTED ARGS... repeats ep ARGS until it prints what is wanted.
until_is() {
  local what=$1 wanted=$2 deadline=$((SECONDS + wait_seconds_max))
  shift 2
  while got=$(ep "$@"); do
    if [[ $got == "$wanted" ]]; then
      echo "ok      $what is $wanted"
      return
    fi
    if ((SECONDS > deadline)); then fail "$what" "it stays $got"; fi
    sleep 0.2
  done
  fail "$what" "see above"
}

id='^[0-9a-f]{32}$'
play() {
  local app segment job campaign nobody=00000000000000000000000000000000
  local now items n

  gives create-app "$id" create-app --create-application-request Name=Tea,tags={made-by=awscli} \
    --query ApplicationResponse.Id --output text
  app=$got
  gives update-email-channel '^True$' update-email-channel --application-id "$app" --email-channel-request \
    "Enabled=true,FromAddress=shop@tea.example,Identity=arn:aws:ses:$AWS_REGION:$EVERPOINT_ACCOUNT_ID:identity/tea.example" \
    --query EmailChannelResponse.Enabled --output text
  gives update-sms-channel '^True$' update-sms-channel --application-id "$app" --sms-channel-request Enabled=true \
    --query SMSChannelResponse.Enabled --output text

  gives update-endpoint '^Accepted$' update-endpoint --application-id "$app" --endpoint-id alice --endpoint-request '{
    "ChannelType": "EMAIL", "Address": "alice@tea.example", "Attributes": {"likes": ["oolong"]},
    "Metrics": {"orders": 3}, "Location": {"Latitude": 47.61}, "User": {"UserId": "alice", "UserAttributes": {"name": ["Alice"]}}}' \
    --query MessageBody.Message --output text
  gives get-endpoint $'^alice@tea.example\tEMAIL\tACTIVE\tNONE\toolong\tAlice\t47.6$' get-endpoint --application-id "$app" --endpoint-id alice \
    --query 'EndpointResponse.[Address,ChannelType,EndpointStatus,OptOut,Attributes.likes[0],User.UserAttributes.name[0],Location.Latitude]' \
    --output text

  mkdir -p "$EVERPOINT_BUCKETS/awscli/$app"
  printf '%s\n' 'Id,ChannelType,Address,Attributes.likes,User.UserId' 'bob,SMS,+12535550001,oolong,bob' \
    'carol,EMAIL,carol@tea.example,oolong,carol' 'dan,EMAIL,dan@tea.example,sencha,dan' >"$EVERPOINT_BUCKETS/awscli/$app/three.csv"
  gives create-import-job "$id" create-import-job --application-id "$app" --import-job-request \
    "Format=CSV,S3Url=s3://awscli/$app/,RoleArn=arn:aws:iam::$EVERPOINT_ACCOUNT_ID:role/import,RegisterEndpoints=true" \
    --query ImportJobResponse.Id --output text
  job=$got
  until_is "the import" $'COMPLETED\t3\t0' get-import-job --application-id "$app" --job-id "$job" \
    --query 'ImportJobResponse.[JobStatus,TotalProcessed,TotalFailures]' --output text

  gives create-segment "$id" create-segment --application-id "$app" --write-segment-request '{"Name": "oolong",
    "Dimensions": {"Attributes": {"likes": {"AttributeType": "INCLUSIVE", "Values": ["oolong"]}}}}' \
    --query SegmentResponse.Id --output text
  segment=$got
  gives create-email-template "templates/tea-$app/EMAIL\$" create-email-template --template-name "tea-$app" --email-template-request '{
    "Subject": "{{User.UserAttributes.name}}, it is here", "TextPart": "The first {{Attributes.likes.[0]}} of the year.",
    "DefaultSubstitutions": "{\"User.UserAttributes.name\":\"Tea lover\"}"}' \
    --query CreateTemplateMessageBody.Arn --output text
  gives create-campaign "$id" create-campaign --application-id "$app" --write-campaign-request '{"Name": "First harvest",
    "SegmentId": "'"$segment"'", "Schedule": {"StartTime": "IMMEDIATE"}, "TemplateConfiguration": {"EmailTemplate": {"Name": "tea-'"$app"'"}},
    "MessageConfiguration": {"SMSMessage": {"Body": "It is here, {{User.UserId}}", "MessageType": "PROMOTIONAL"}}}' \
    --query CampaignResponse.Id --output text
  campaign=$got
  until_is "the campaign" COMPLETED get-campaign --application-id "$app" --campaign-id "$campaign" \
    --query CampaignResponse.State.CampaignStatus --output text
  gives get-campaign-activities $'^COMPLETED\tSUCCESS\t3\t3$' get-campaign-activities --application-id "$app" --campaign-id "$campaign" \
    --query 'ActivitiesResponse.Item[0].[State,Result,TotalEndpointCount,SuccessfulEndpointCount]' --output text

  gives send-messages $'^SUCCESSFUL\t200$' send-messages --application-id "$app" --message-request '{
    "Addresses": {"+12535550002": {"ChannelType": "SMS"}},
    "MessageConfiguration": {"SMSMessage": {"Body": "Your code is 4711", "MessageType": "TRANSACTIONAL"}}}' \
    --query 'MessageResponse.Result.*[] | [0].[DeliveryStatus,StatusCode]' --output text
  now=$(date -u +%Y-%m-%dT%H:%M:%S.000Z)
  gives put-events $'^202\t202$' put-events --application-id "$app" --events-request '{"BatchItem": {"alice": {
    "Endpoint": {"Metrics": {"visits": 1}}, "Events": {"1": {"EventType": "tea.tasted", "Timestamp": "'"$now"'"}}}}}' \
    --query 'EventsResponse.Results.alice.[EndpointItemResponse.StatusCode,EventsItemResponse."1".StatusCode]' --output text

  refuses "a wrong app" NotFoundException 'not found' get-app --application-id "$nobody"
  refuses "a bad enum" BadRequestException ChannelType update-endpoint --application-id "$app" --endpoint-id fax \
    --endpoint-request ChannelType=FAX,Address=1
  AWS_CONFIG_FILE=$scratch/lax refuses "a missing member" BadRequestException Format create-import-job --application-id "$app" \
    --import-job-request "S3Url=s3://awscli/x,RoleArn=arn:aws:iam::$EVERPOINT_ACCOUNT_ID:role/import"
  AWS_SECRET_ACCESS_KEY=wrong refuses "a bad signature" InvalidSignatureException signature get-app --application-id "$app"

  items=
  for n in {1..15}; do items+="${items:+,}{\"Id\": \"many-$n\", \"ChannelType\": \"EMAIL\", \"Address\": \"many$n@tea.example\", \"User\": {\"UserId\": \"many\"}}"; done
  gives "15 endpoints of a user" '^Accepted$' update-endpoints-batch --application-id "$app" --endpoint-batch-request "{\"Item\": [$items]}" \
    --query MessageBody.Message --output text
  refuses "the 16th endpoint of a user" BadRequestException '^Exceeded maximum endpoint per user count: 15' \
    update-endpoint --application-id "$app" --endpoint-id many-16 --endpoint-request '{"ChannelType": "EMAIL", "Address": "many16@tea.example", "User": {"UserId": "many"}}'
  refuses "a bad template" BadRequestException TextPart create-email-template --template-name "bad-$app" \
    --email-template-request '{"Subject": "x", "TextPart": "{{#if Attributes.likes}} and no end"}'
  items=
  for n in {1000..1100}; do items+="${items:+,}\"+1253555$n\": {\"ChannelType\": \"SMS\"}"; done
  refuses "too many recipients" BadRequestException 100 send-messages --application-id "$app" --message-request \
    "{\"Addresses\": {$items}, \"MessageConfiguration\": {\"SMSMessage\": {\"Body\": \"x\"}}}"
  refuses "a bad segment" BadRequestException 'Dimensions|SegmentGroups' create-segment --application-id "$app" --write-segment-request '{"Name": "both",
    "Dimensions": {"Attributes": {"a": {"Values": ["b"]}}}, "SegmentGroups": {"Groups": [], "Include": "ALL"}}'
  refuses "a bad paging token" BadRequestException '[Tt]oken' get-apps --token not-one-of-ours
  refuses "an unknown job" NotFoundException 'not found' get-import-job --application-id "$app" --job-id "$nobody"

  gives delete-app "^$app\$" delete-app --application-id "$app" --query ApplicationResponse.Id --output text
  ep delete-email-template --template-name "tea-$app" --output text >/dev/null
}

for aws in "${clis[@]}"; do
  printf '%s: %s\n' "$aws" "$("$aws" --version 2>&1)"
  play
done
echo "all is as it should be"
