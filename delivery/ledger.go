package delivery

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// Fate is what an entry says became of an attempt.
type Fate string

// The fates. Sent, Failed and Held are final; Ambiguous is final when it was
// left and no later entry resolved it.
const (
	FateSent      Fate = "SENT"
	FateFailed    Fate = "FAILED"
	FateHeld      Fate = "HELD"
	FateDeferred  Fate = "DEFERRED"
	FateAmbiguous Fate = "AMBIGUOUS"
)

// Entry is one line of the ledger: what became of one attempt at one member.
type Entry struct {
	Member  int   // index into the block
	Attempt int   // from 1; 0 for a member that was held before any
	At      int64 // Unix milliseconds
	Fate    Fate
	// Region made the attempt: another's of the same number is another attempt. It is
	// empty when there was none, or when a mark is all that is known of it.
	Region string `json:",omitempty"`
	// Reason is why it was held or failed, in the words of campaign_send_status
	// and the admission metrics; for an ambiguous attempt the Policy applied.
	Reason      string   `json:",omitempty"`
	Code        string   `json:",omitempty"` // the provider's
	Detail      string   `json:",omitempty"`
	ProviderIDs []string `json:",omitempty"`
	Parts       int      `json:",omitempty"`
	RetryAt     int64    `json:",omitempty"` // of a deferred attempt, Unix milliseconds
}

// attemptOf names one attempt at one member of a block.
type attemptOf struct {
	member, attempt int
	region          string
}

func (e *Entry) of() attemptOf { return attemptOf{e.Member, e.Attempt, e.Region} }

// intentRow says which attempts are about to be on the wire, and who sends them.
type intentRow struct {
	At       int64
	Region   string
	Epoch    uint64 // of the Region's membership
	Members  []int
	Attempts []int // beside Members
}

// lostIntent is what a block's members count as when a mark is all that is known
// of an earlier attempt.
func (b *Block) lostIntent() intentRow {
	in := intentRow{At: b.At.UnixMilli()}
	for i := range b.Members {
		in.Members, in.Attempts = append(in.Members, i), append(in.Attempts, 1)
	}
	return in
}

// standing is where one member of a block stands.
type standing struct {
	attempts int  // attempts begun
	idle     int  // of them, those that are known not to have been on the wire
	fate     Fate // "" while it waits
	reason   string
	retryAt  int64 // not before, Unix milliseconds
	open     int   // the attempt of an intent that has no entry; 0: none
	openAt   int64
	openBy   string // the Region that made it; empty: known by a mark alone
}

// madeBy is an attempt's number and the Region that made it.
type madeBy struct {
	attempt int
	region  string
}

func (st *standing) openAttempt() madeBy { return madeBy{st.open, st.openBy} }

func (st *standing) settled() bool {
	return st.fate == FateSent || st.fate == FateFailed || st.fate == FateHeld || st.fate == FateAmbiguous
}

// fold tells where each of n members stands from the ledger's rows. It does not
// matter in what order the rows come, nor whether some come twice.
func fold(n int, intents []intentRow, entries []Entry) ([]standing, error) {
	out := make([]standing, n)
	entries = slices.Clone(entries)
	// Of two entries on one attempt the final one is the later knowledge.
	slices.SortStableFunc(entries, func(a, b Entry) int {
		if a.Attempt != b.Attempt {
			return a.Attempt - b.Attempt
		}
		return weight(a.Fate) - weight(b.Fate)
	})
	told := make(map[attemptOf]bool, len(entries)) // attempts that an entry is about
	idle := make([]int, n)                         // the last one that was not on the wire
	for _, e := range entries {
		if e.Member < 0 || e.Member >= n {
			return nil, fmt.Errorf("delivery: entry for member %d of %d", e.Member, n)
		}
		st := &out[e.Member]
		st.attempts = max(st.attempts, e.Attempt)
		told[e.of()] = true
		if e.Fate == FateDeferred && offWire(e.Code) && e.Attempt > idle[e.Member] {
			idle[e.Member] = e.Attempt
			st.idle++
		}
		sent := e.Fate == FateSent || e.Fate == FateFailed
		if st.fate == FateHeld && st.reason == ReasonSuperseded && sent {
			st.fate, st.reason = e.Fate, e.Reason // it was sent, whoever thought otherwise
			continue
		}
		if st.fate == FateSent || st.fate == FateFailed || st.fate == FateHeld {
			if st.fate == FateHeld && e.Fate == FateHeld && e.Reason == ReasonSuperseded {
				st.reason = e.Reason // who held them had no claim that counts
			}
			continue
		}
		switch e.Fate {
		case FateDeferred:
			if st.fate == FateAmbiguous {
				continue // it was left: that its Region had put off another attempt comes late
			}
			st.fate, st.retryAt = "", e.RetryAt
		case FateAmbiguous:
			st.fate = FateAmbiguous
			if Policy(e.Reason) == Resend {
				st.fate, st.retryAt = "", e.RetryAt
			}
		default:
			st.fate, st.reason = e.Fate, e.Reason
		}
	}
	for _, row := range intents {
		for k, m := range row.Members {
			if m < 0 || m >= n || k >= len(row.Attempts) {
				return nil, fmt.Errorf("delivery: intent for member %d of %d", m, n)
			}
			st := &out[m]
			st.attempts = max(st.attempts, row.Attempts[k])
			if row.Attempts[k] > st.open && !st.settled() && !told[attemptOf{m, row.Attempts[k], row.Region}] {
				st.open, st.openAt, st.openBy = row.Attempts[k], row.At, row.Region
			}
		}
	}
	return out, nil
}

// The codes of attempts that this room put off before they were on the wire.
const (
	codeClaim = "claim" // the other Regions do not have the intent
	codeLease = "lease" // the Region's lease was over
	codePace  = "pace"  // there was no turn in time
)

// offWire reports whether a deferred attempt's code says that it was not on the wire.
// Such attempts do not count against Config.AttemptsMax.
func offWire(code string) bool { return code == codeClaim || code == codeLease || code == codePace }

func weight(f Fate) int {
	switch f {
	case FateDeferred:
		return 0
	case FateAmbiguous:
		return 1
	default:
		return 2
	}
}

// ledgerRowsMax bounds the rows of one block: each attempt adds at most two for
// each chunk.
const ledgerRowsMax = 100_000

// readLedger reads a block's rows.
func readLedger(r store.Reader, block string) (intents []intentRow, entries []Entry, err error) {
	rows, err := r.List(kindIntent, block+"/", "", ledgerRowsMax)
	if err != nil {
		return nil, nil, err
	}
	for _, row := range rows {
		in, err := store.Decode[intentRow](kindIntent, row.Body)
		if err != nil {
			return nil, nil, err
		}
		intents = append(intents, *in)
	}
	entries, err = readEntries(r, block)
	return intents, entries, err
}

// readEntries reads what is known of a block's attempts.
func readEntries(r store.Reader, block string) ([]Entry, error) {
	rows, err := r.List(kindEntries, block+"/", "", ledgerRowsMax)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, row := range rows {
		list, err := store.Decode[[]Entry](kindEntries, row.Body)
		if err != nil {
			return nil, err
		}
		entries = append(entries, *list...)
	}
	return entries, nil
}

// rowKey names a new ledger row of a block: stamps are unique on a node.
func (s *Service) rowKey(tx *store.Tx, block string) string {
	return fmt.Sprintf("%s/%016x-%s-%s", block, tx.Stamp().Clock, s.store.Region(), s.cfg.Node)
}

func putIntent(tx *store.Tx, key string, row *intentRow) error {
	return store.Save(tx, kindIntent, key, row)
}

func putEntries(tx *store.Tx, key string, entries []Entry) error {
	return store.Save(tx, kindEntries, key, &entries)
}

// Ambiguous is one send whose outcome nobody knows, or knew for a while.
type Ambiguous struct {
	MessageID  string
	App        string
	Plan       string
	Block      string
	Member     int
	Campaign   string `json:",omitempty"`
	Activity   string `json:",omitempty"`
	Call       string `json:",omitempty"`
	EndpointID string `json:",omitempty"`
	Channel    string
	Address    string
	IntentAt   time.Time
	Region     string
	Decision   Policy
	ResolvedAt time.Time `json:",omitzero"` // when a later entry told what became of it
	Resolution string    `json:",omitempty"`
}

func ambiguousKey(app, plan, messageID string, attempt int, region string) string {
	return fmt.Sprintf("%s/%s/%s/%d/%s", app, plan, messageID, attempt, region)
}

// AmbiguousSends lists an app's ambiguous sends in a stable order, those of one
// campaign when it is given, after the cursor of an earlier page; next is empty
// at the end.
func (s *Service) AmbiguousSends(r store.Reader, app, campaign, after string, limit int) (page []Ambiguous, next string, err error) {
	for len(page) < limit {
		rows, err := r.List(kindAmbiguous, app+"/", after, limit)
		if err != nil {
			return nil, "", err
		}
		for _, row := range rows {
			a, err := store.Decode[Ambiguous](kindAmbiguous, row.Body)
			if err != nil {
				return nil, "", err
			}
			after = row.Key
			if campaign != "" && a.Campaign != campaign {
				continue
			}
			if page = append(page, *a); len(page) == limit {
				return page, after, nil
			}
		}
		if len(rows) < limit {
			return page, "", nil
		}
	}
	return page, after, nil
}

// boundedText cuts a text to n bytes without breaking a character.
func boundedText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
