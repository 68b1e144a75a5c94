package main

import (
	"context"
	"fmt"
	"io"

	"github.com/everpoint/everpoint/cmd/carriers"
)

func runCarriers(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("carriers", `carriers [flags]

Runs an SMTP relay, an SMS centre and the outbox page, which only pretend: what
nodes send to them is kept in memory and shown.`, stderr)
	cfg := carriers.Config{}
	fs.StringVar(&cfg.SMTP, "smtp", "127.0.0.1:2525", "address of the SMTP relay")
	fs.StringVar(&cfg.SMPP, "smpp", "127.0.0.1:2775", "address of the SMS centre")
	fs.StringVar(&cfg.Outbox, "outbox", "127.0.0.1:8025", "address of the outbox page")
	fs.IntVar(&cfg.BodyBytes, "body-bytes", 0, "how much of each body the outbox keeps; 0 means 4096, -1 none")
	fs.DurationVar(&cfg.ReceiptAfter, "receipt-after", 0, "when a text is reported delivered; 0 means 300ms, negative never")
	if done, err := parse(fs, args); done {
		return err
	}
	c := carriers.New(cfg)
	if err := c.Listen(ctx); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "carriers ready: smtp %s, smpp %s, outbox http://%s/\n", c.Addr("smtp"), c.Addr("smpp"), c.Addr("outbox"))
	return c.Run(ctx)
}
