package aws

import "strings"

// ARN names a resource: arn:partition:service:region:account:resource.
// The resource part may itself hold colons and slashes.
type ARN struct {
	Partition, Service, Region, Account, Resource string
}

// String prints the ARN in its wire form.
func (a ARN) String() string {
	p := a.Partition
	if p == "" {
		p = "aws"
	}
	return "arn:" + p + ":" + a.Service + ":" + a.Region + ":" + a.Account + ":" + a.Resource
}

// ParseARN splits s into its six parts. It checks the shape only: six parts,
// the first "arn", a service and a resource that are not empty.
func ParseARN(s string) (ARN, error) {
	p := strings.SplitN(s, ":", 6)
	if len(p) != 6 || p[0] != "arn" || p[1] == "" || p[2] == "" || p[5] == "" {
		return ARN{}, Invalid("%q is not an ARN", s)
	}
	return ARN{p[1], p[2], p[3], p[4], p[5]}, nil
}
