package smtp_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smtp"
	"github.com/everpoint/everpoint/courier/smtp/smtptest"
)

// A client and the double beside it, joined by a pipe.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	l := smtptest.NewPipe()
	server := smtptest.New(smtptest.Config{Label: "us-east-1"}, func(m smtptest.Received) {
		fmt.Printf("%s took %s for %s\n", m.Label, m.MessageID(), m.To)
	})
	server.SetRules(smtptest.Rule{At: smtptest.AtRcpt, Match: smtptest.ToRecipient("gone@people.example"), Reply: "550 5.1.1 no such user"})
	running.Go(func() { server.Serve(ctx, l) })

	client, err := smtp.New(smtp.Config{Addr: "relay.example:25"}, l.DialContext)
	if err != nil {
		fmt.Println(err)
		return
	}
	running.Go(func() { client.Run(ctx) })

	for _, to := range []string{"ann@people.example", "gone@people.example"} {
		out := client.Send(ctx, &courier.Message{
			ID:   "1",
			From: "news@shop.example",
			To:   to,
			Mail: &courier.Mail{Data: []byte("Message-ID: <1@shop.example>\r\nSubject: News\r\n\r\nHello.\r\n")},
		})
		fmt.Println(out.Status, out.Code, out.Enhanced)
	}
	// Output:
	// us-east-1 took <1@shop.example> for [ann@people.example]
	// accepted 250 2.0.0
	// refused 550 5.1.1
}
