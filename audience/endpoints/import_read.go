package endpoints

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

// chunk is what one update imports: the lines between two positions.
type chunk struct {
	from, to  position
	items     []item
	touches   []store.Touch
	completed int // files that ended well within it
	failed    int // files given up within it
	size      int // bytes of the lines
	last      bool
}

// item is one line, checked as far as the line alone can tell.
type item struct {
	file  int
	line  int64 // 0 when it stands for the whole file
	patch *Patch
	user  string // of a user-id file; patch is then nil
	fault string // why it is not imported; empty when it may be
}

const (
	chunkBytesMax  = 4 << 20 // of the lines of a chunk
	readBufferSize = 256 << 10
	lineUsersMax   = 2000 // users on one line, which one update takes
)

// importReader reads a job's files from a position and hands over chunks.
type importReader struct {
	im    *Imports
	job   *importJob // as it was when the reader began; read only
	files []sourceFile
	yield func(*chunk) error

	at   position
	next *chunk
}

// read hands over every chunk up to the end of the last file. It fails only
// when ctx ends or yield does: what is wrong with a file is in the chunks.
func (r *importReader) read(ctx context.Context) error {
	r.at = r.job.Position
	r.next = &chunk{from: r.at}
	for r.at.File < len(r.files) {
		err := r.file(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if stop, ok := errors.AsType[*yieldError](err); ok {
			return stop.err
		}
		if err != nil {
			r.next.failed++
			r.next.items = append(r.next.items, item{file: r.at.File, fault: describeFile(err)})
		} else {
			r.next.completed++
		}
		r.at = position{File: r.at.File + 1, Read: r.at.Read}
		if err := r.flush(false); err != nil {
			return err
		}
	}
	r.next.last = true
	return r.flush(true)
}

// yieldError marks an error of the receiver, not of the file.
type yieldError struct{ err error }

func (e *yieldError) Error() string { return e.err.Error() }

// describeFile says what is wrong with a file without repeating what it holds.
func describeFile(err error) string {
	switch {
	case errors.Is(err, errChanged):
		return errChanged.Error()
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
		return "the compressed file is damaged or cut short"
	}
	return describe(err)
}

// flush hands over the chunk when it is large enough, or at the end.
func (r *importReader) flush(end bool) error {
	c := r.next
	if !end && len(c.items) < r.im.cfg.ChunkRows && len(c.touches) < r.im.cfg.ChunkTouches && c.size < chunkBytesMax {
		return nil
	}
	c.to = r.at
	r.next = &chunk{from: r.at, items: make([]item, 0, len(c.items))}
	return r.yield(c)
}

// file reads the file at the position, from the position on.
func (r *importReader) file(ctx context.Context) error {
	lines, header, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer lines.close()
	var p lineParser = &jsonParser{}
	if r.job.Definition.Format == pinpoint.FormatCsv {
		if header == "" {
			return aws.Invalid("the file has no header")
		}
		if p, err = newCSVParser(header); err != nil {
			return err
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		text, n, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		tooLong := errors.Is(err, errLongLine)
		if err != nil && !tooLong {
			return err
		}
		r.at.Offset += n
		r.at.Read += n
		r.at.Line++
		if r.at.Read > r.im.cfg.BytesMax {
			return aws.Invalid("the files hold more than %d bytes", r.im.cfg.BytesMax)
		}
		r.next.size += int(n)
		switch {
		case tooLong:
			r.fail("the line is longer than %d bytes", r.im.cfg.LineBytesMax)
		case len(text) > 0:
			r.line(p, string(text))
		}
		if err := r.flush(false); err != nil {
			return &yieldError{err}
		}
	}
}

func (r *importReader) fail(format string, args ...any) {
	r.next.items = append(r.next.items, item{file: r.at.File, line: r.at.Line, fault: fmt.Sprintf(format, args...)})
}

// line checks and encodes one line.
func (r *importReader) line(p lineParser, text string) {
	if !utf8.ValidString(text) {
		r.fail("the line is not UTF-8")
		return
	}
	l, err := p.parse(text)
	if err != nil {
		r.fail("%s", describe(err))
		return
	}
	it := item{file: r.at.File, line: r.at.Line}
	s, app := r.im.rooms, r.job.App
	if l.request == nil {
		if len(l.users) > lineUsersMax {
			r.fail("more than %d users stand on the line", lineUsersMax)
			return
		}
		for _, it.user = range l.users {
			r.next.touches = append(r.next.touches, store.Touch{Kind: KindEndpoint, Index: ByUser(app, it.user)})
			r.next.items = append(r.next.items, it)
		}
		return
	}
	id := l.id
	if id == "" {
		id = r.madeID()
	}
	if it.patch, err = s.Prepare(app, id, l.request, r.job.ID); err != nil {
		r.fail("%s", describe(err))
		return
	}
	it.patch.complete = true
	it.patch.made = l.id == ""
	r.next.touches = append(r.next.touches, it.patch.Touches()...)
	r.next.items = append(r.next.items, it)
}

// madeID makes the endpoint id of a line that has none. The same line of the
// same job gets the same id, however often the job is taken up.
func (r *importReader) madeID() string {
	h := sha256.New()
	h.Write([]byte(r.job.ID))
	var at [16]byte
	binary.BigEndian.PutUint64(at[:8], uint64(r.at.File))
	binary.BigEndian.PutUint64(at[8:], uint64(r.at.Line))
	h.Write(at[:])
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// open opens the file at the position and, for CSV, reads its header.
func (r *importReader) open(ctx context.Context) (lines *lineReader, header string, err error) {
	f := r.files[r.at.File]
	source := r.im.buckets[f.Bucket]
	name, _, err := splitURL(r.job.Definition.S3Url)
	if err != nil {
		return nil, "", err
	}
	raw, err := source.open(ctx, name, f, 0)
	if err != nil {
		return nil, "", err
	}
	lines = &lineReader{raw: raw, max: r.im.cfg.LineBytesMax, in: bufio.NewReaderSize(raw, readBufferSize)}
	defer func() {
		if err != nil {
			lines.close()
		}
	}()
	packed := false
	if magic, _ := lines.in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(lines.in)
		if err != nil {
			return nil, "", err
		}
		lines.in, packed = bufio.NewReaderSize(unpacked, readBufferSize), true
	}
	read := int64(0)
	if mark, _ := lines.in.Peek(len(byteOrderMark)); bytes.Equal(mark, byteOrderMark) {
		n, _ := lines.in.Discard(len(byteOrderMark))
		read += int64(n)
	}
	headerLines := int64(0)
	if r.job.Definition.Format == pinpoint.FormatCsv {
		text, n, err := lines.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, "", err
		}
		header, read, headerLines = string(text), read+n, 1
	}
	switch {
	case r.at.Offset == 0:
		r.at.Offset, r.at.Line = read, headerLines
		r.at.Read += read
	case packed || r.at.Offset-read < readBufferSize:
		if _, err := io.CopyN(io.Discard, lines.in, r.at.Offset-read); err != nil {
			return nil, "", err
		}
	default:
		lines.close()
		if raw, err = source.open(ctx, name, f, r.at.Offset); err != nil {
			return nil, "", err
		}
		lines.raw = raw
		lines.in.Reset(raw)
	}
	return lines, header, nil
}

// lineReader reads lines of bounded length.
type lineReader struct {
	raw io.ReadCloser
	in  *bufio.Reader
	max int
	buf []byte
}

var errLongLine = errors.New("the line is too long")

func (l *lineReader) close() { l.raw.Close() }

// next returns the next line without its end, and how many bytes it took. The
// line is valid until the following call. A line above the bound is skipped to
// its end and reported with errLongLine. The end of the file is io.EOF.
func (l *lineReader) next() (text []byte, n int64, err error) {
	l.buf = l.buf[:0]
	long := false
	for {
		part, err := l.in.ReadSlice('\n')
		n += int64(len(part))
		long = long || len(l.buf)+len(part) > l.max+2
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if !long {
				l.buf = append(l.buf, part...)
			}
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return nil, n, err
		case err != nil && n == 0:
			return nil, 0, io.EOF
		}
		if len(l.buf) > 0 && !long {
			l.buf = append(l.buf, part...)
			part = l.buf
		}
		part = bytes.TrimSuffix(bytes.TrimSuffix(part, []byte("\n")), []byte("\r"))
		if long || len(part) > l.max {
			return nil, n, errLongLine
		}
		return part, n, nil
	}
}
