// Package channels keeps, for each app, the settings of the ten channels that
// messages leave by: ADM, APNS (and its sandbox, VoIP and VoIP sandbox), BAIDU,
// EMAIL, GCM, SMS and VOICE.
//
// A channel does not exist until it is put for the first time, at version 1;
// each accepted put raises the version; deleting it forgets settings and
// secrets, and the next put starts over. An app's other rows do not change.
//
// # Secrets
//
// Keys, certificates and service accounts are written and never come back; in
// memory they are a [Secret], which does not print, and at rest the store seals
// them like every row. Credentials are kept in sets: APNs' signing key, APNs'
// certificate, FCM's API key, FCM's service account, ADM's and Baidu's pair. A put that
// names no member of a set leaves the set as it is (clients switch Enabled
// alone); a put that names one replaces the whole set. The same holds for the
// sender id and short code of SMS. The email channel is replaced as a whole,
// for its request always names it.
//
// # Left alone here
//
// That an identity is verified, that a role may be assumed and that a key is
// the provider's is found when a message is sent. Here the form of ARNs is
// checked, and that they are the caller's account's.
//
// Source: channels-and-events 1, 2.2, 14; spec README, RoleArn.
package channels
