package queue

import (
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

// Buried is work that was given up after AttemptsMax errors.
type Buried struct {
	Work
	Attempts  int
	LastError string
	BuriedAt  time.Time
}

const (
	errorBytesMax = 500  // of a handler's error that are kept
	buriedPageMax = 1000 // rows of one page
	retryDelayMax = 5 * time.Minute
)

// fail puts the work back after an error, or buries it.
func (it *Item) fail(tx *store.Tx, cause error) error {
	r, err := it.row(tx)
	if err != nil {
		return err
	}
	r.Attempts++
	r.LastError = bounded(cause.Error(), errorBytesMax)
	if r.Attempts >= it.q.cfg.AttemptsMax {
		return bury(tx, r)
	}
	r.Due = tx.Now().Add(it.q.delay(r.Attempts))
	return it.q.wait(tx, r)
}

// bury gives up work that is leased or, its due row apart, waits.
func bury(tx *store.Tx, r *row) error {
	key := workKey(r.Kind, r.ID)
	if err := tx.Remove(kindWork, key); err != nil {
		return err
	}
	return store.Save(tx, kindBuried, key, &Buried{r.Work, r.Attempts, r.LastError, tx.Now()})
}

// delay is exponential with full jitter: up to RetryDelay, twice that, four
// times that, …, retryDelayMax.
func (q *Queue) delay(attempts int) time.Duration {
	limit := min(q.cfg.RetryDelay, retryDelayMax)
	for n := 1; n < attempts && limit < retryDelayMax; n++ {
		limit = min(2*limit, retryDelayMax)
	}
	return time.Duration(q.rnd() * float64(limit))
}

func bounded(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// BuriedWork lists what was given up, at most limit (1 to 1,000), after a token
// that an earlier page ended with; next is empty at the end.
func (q *Queue) BuriedWork(r store.Reader, after string, limit int) (page []Buried, next string, err error) {
	limit = min(max(limit, 1), buriedPageMax)
	rows, err := r.List(kindBuried, "", after, limit+1)
	if err != nil {
		return nil, "", err
	}
	for i, w := range rows {
		if i == limit {
			return page, rows[i-1].Key, nil
		}
		b, err := store.Decode[Buried](kindBuried, w.Body)
		if err != nil {
			return nil, "", err
		}
		page = append(page, *b)
	}
	return page, "", nil
}

// Retry takes buried work out again, due now and its errors forgotten. When the
// same work was enqueued anew meanwhile, that stays as it is.
func (q *Queue) Retry(tx *store.Tx, kind, id string) error {
	b, err := store.Load[Buried](tx, kindBuried, workKey(kind, id))
	if err != nil {
		return err
	}
	if b == nil {
		return aws.NotFound("no buried work %s of kind %s", id, kind)
	}
	if err := tx.Remove(kindBuried, workKey(kind, id)); err != nil {
		return err
	}
	b.Due = tx.Now()
	return q.add(tx, b.Work)
}

// BuriedOf reads one piece of buried work; NotFound when there is none.
func (q *Queue) BuriedOf(r store.Reader, kind, id string) (*Buried, error) {
	b, err := store.Load[Buried](r, kindBuried, workKey(kind, id))
	if err == nil && b == nil {
		err = aws.NotFound("no buried work %s of kind %s", id, kind)
	}
	return b, err
}
