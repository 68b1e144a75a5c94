package quorum

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/everpoint/everpoint/aws"
)

// relayed marks a request that a node of the Region passed on to the one that
// runs the voter; it is passed on once.
const relayed = "Everpoint-Quorum-Relayed"

// Handler answers the other voters below [Path]. It is to be served to peers
// only, over mutual TLS: whoever can reach it can take part.
//
//	POST messages   an envelope; 202, and what became of the messages is not said
//	POST propose    a proposal; 202 when the leader has it, 421 with the leader's
//	                name, 503 with a reason
//	POST join       a voter asks to be admitted; 202, 410 when its life is over, and
//	                as above
//	POST stop       a Stop, to be proposed for who does not reach the leader; 200 with
//	                its Result, 503 with a reason
//	GET  voter      who this is
func (q *Quorum) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path+"messages", q.serve(envelopeBytesMax, q.takeMessages))
	mux.HandleFunc("POST "+Path+"propose", q.serve(proposalBytesMax, q.takeProposal))
	mux.HandleFunc("POST "+Path+"join", q.serve(answerBytesMax, q.takeJoin))
	mux.HandleFunc("POST "+Path+"stop", q.serve(answerBytesMax, q.takeStop))
	mux.HandleFunc("GET "+Path+"voter", q.serve(0, q.tellVoter))
	return mux
}

// serve reads a bounded body and has it answered by the node that runs the voter.
func (q *Quorum) serve(most int64, answer func(w http.ResponseWriter, r *http.Request, body []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
		if err != nil {
			status := http.StatusBadRequest
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				status = http.StatusRequestEntityTooLarge
			}
			say(w, status, reply{Reason: "the request's body cannot be read"})
			return
		}
		q.mu.Lock()
		voting, holder := q.view.voting, q.view.holder
		q.mu.Unlock()
		if voting {
			answer(w, r, body)
			return
		}
		if holder == "" || holder == q.cfg.URL || r.Header.Get(relayed) != "" {
			say(w, http.StatusServiceUnavailable, reply{Reason: "no node of this Region runs the voter"})
			return
		}
		q.relay(w, r, holder, body)
	}
}

func (q *Quorum) relay(w http.ResponseWriter, r *http.Request, holder string, body []byte) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, holder+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		say(w, http.StatusBadGateway, reply{Reason: "the node that runs the voter has no proper address"})
		return
	}
	req.Header.Set(relayed, q.cfg.Node)
	resp, err := q.client.Do(req)
	if err != nil {
		say(w, http.StatusBadGateway, reply{Reason: "the node that runs the voter is not reached"})
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, io.LimitReader(resp.Body, answerBytesMax)); err != nil {
		q.log.DebugContext(r.Context(), "answer was not relayed", "error", err)
	}
}

func say(w http.ResponseWriter, status int, r reply) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Who asked may be gone; nobody else wants to know.
	_ = json.NewEncoder(w).Encode(r)
}

func (q *Quorum) takeMessages(w http.ResponseWriter, _ *http.Request, body []byte) {
	e, messages, err := decodeEnvelope(body)
	if err != nil {
		q.log.Warn("messages were refused", "error", err)
		say(w, http.StatusBadRequest, reply{Reason: err.Error()})
		return
	}
	q.hear(e.From, e.URL)
	select {
	case q.inbox <- func(v *voter) {
		if e.Cluster != v.id.Cluster || e.Cluster == "" {
			return
		}
		for _, m := range messages {
			if len(v.names) < 4*peersMax {
				v.names[m.GetFrom()] = e.From
			}
			v.step(m)
		}
	}:
		w.WriteHeader(http.StatusAccepted)
	default:
		say(w, http.StatusServiceUnavailable, reply{Reason: "the voter is too busy"})
	}
}

// ask has the voter's loop answer; ok is false when the caller went away first.
func (q *Quorum) ask(r *http.Request, f func(v *voter) (int, reply)) (status int, said reply, ok bool) {
	type answer struct {
		status int
		said   reply
	}
	done := make(chan answer, 1) // the loop does not wait for a caller who is gone
	work := func(v *voter) {
		status, said := f(v)
		done <- answer{status, said}
	}
	select {
	case q.inbox <- work:
	case <-r.Context().Done():
		return 0, reply{}, false
	}
	select {
	case a := <-done:
		return a.status, a.said, true
	case <-r.Context().Done():
		return 0, reply{}, false
	}
}

func (q *Quorum) takeProposal(w http.ResponseWriter, r *http.Request, body []byte) {
	// One that a newer release made is passed over when it is applied, by all alike.
	if _, err := decodeProposal(body); err != nil && !errors.Is(err, errUnknown) {
		say(w, http.StatusBadRequest, reply{Reason: err.Error()})
		return
	}
	if status, said, ok := q.ask(r, func(v *voter) (int, reply) { return v.accept(body) }); ok {
		say(w, status, said)
	}
}

func (q *Quorum) takeStop(w http.ResponseWriter, r *http.Request, body []byte) {
	c, err := decode[Stop](body)
	if err != nil {
		say(w, http.StatusBadRequest, reply{Reason: err.Error()})
		return
	}
	result, err := q.Propose(r.Context(), c)
	if err != nil {
		say(w, http.StatusServiceUnavailable, reply{Reason: err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(result) // an order that is not heard to stand is given again
}

func (q *Quorum) takeJoin(w http.ResponseWriter, r *http.Request, body []byte) {
	var j joining
	if err := json.Unmarshal(body, &j); err != nil {
		say(w, http.StatusBadRequest, reply{Reason: "the request to join cannot be read"})
		return
	}
	if err := named(nameBytesMax, "Name", j.Name); err != nil || j.ID == 0 {
		say(w, http.StatusBadRequest, reply{Reason: aws.Invalid("the request to join names no voter").Error()})
		return
	}
	if status, said, ok := q.ask(r, func(v *voter) (int, reply) { return v.admit(j) }); ok {
		say(w, status, said)
	}
}

func (q *Quorum) tellVoter(w http.ResponseWriter, _ *http.Request, _ []byte) {
	q.mu.Lock()
	p := passport{Name: q.cfg.Name, Cluster: q.view.cluster, Fresh: q.view.fresh, Founder: q.cfg.founder(), Leader: q.view.leader}
	q.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(p) // who asked may be gone
}
