package messages

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/store"
)

// The other Region's record came between the look at the records and the commit.
func TestCall_whose_record_comes_while_it_is_made_is_not_made_again(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		s := &Service{store: w.store, delivery: w.delivery, now: time.Now}
		const key = testApp + "/call"
		other := "other"
		body, _ := json.Marshal(pinpoint.MessageResponse{RequestId: &other})
		w.update(func(tx *store.Tx) error {
			return store.Save(tx, kindCall, key+"/eu-west-1/x", &call{Operation: "SendMessages", Plan: "other", Region: "eu-west-1", At: tx.Now(), Answer: body})
		})
		mine := "mine"
		d := &draft{
			plan:    &delivery.Plan{ID: "mine", App: testApp, Created: time.Now(), Call: &delivery.Call{Operation: "SendMessages"}, Email: &delivery.Email{From: "news@tea.example", Subject: "s", Text: "t"}},
			members: []delivery.Member{{Channel: "EMAIL", Address: "one@tea.example", MessageID: "m"}},
		}
		out, err := commit(t.Context(), s, key, "SendMessages", d, &pinpoint.MessageResponse{RequestId: &mine})
		if err != nil {
			t.Fatal(err)
		}
		if *out.RequestId != other {
			t.Errorf("answered %s: a second plan was made although the record of the first was here", *out.RequestId)
		}
	})
}
