package endpoints

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

const (
	importPollInterval = time.Second // between looks for jobs of other nodes
	importRetryMin     = 100 * time.Millisecond
	importRetryMax     = 10 * time.Second
	openJobsMax        = 1000 // looked at in one round
)

var (
	errLost = errors.New("another node has the job")
	errLed  = errors.New("another Region runs the jobs")
)

func (im *Imports) rouse() {
	select {
	case im.wake <- struct{}{}:
	default:
	}
}

// Run runs import jobs until ctx ends. A job that it was running is left with
// its position; whichever node runs next takes it up from there. Of the jobs that
// this node was running when it was killed, it is the next.
func (im *Imports) Run(ctx context.Context) error {
	tick := time.NewTicker(importPollInterval)
	defer tick.Stop()
	var jobs sync.WaitGroup
	defer jobs.Wait()
	slots := make(chan struct{}, im.cfg.RunningPerNode)
	begun := false
	for {
		var err error
		if !begun {
			err = im.begin(ctx)
			begun = err == nil
		}
		if begun {
			err = im.dispatch(ctx, &jobs, slots)
		}
		if err != nil && ctx.Err() == nil {
			im.log.WarnContext(ctx, "import jobs not looked up", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-im.wake:
		case <-tick.C:
		}
	}
}

// begin ends the leases that an earlier life of this node has left. Should that
// life go on after all, its next step fails.
func (im *Imports) begin(ctx context.Context) error {
	st := im.rooms.store
	rows, err := st.Reader(ctx).Lookup(kindImport, openIn(st.Region()), openJobsMax)
	if err != nil {
		return err
	}
	for _, row := range rows {
		j, err := store.Decode[importJob](kindImport, row.Body)
		if err != nil {
			return err
		}
		if !im.left(j) {
			continue
		}
		err = st.Update(ctx, func(tx *store.Tx) error {
			j, err := store.Load[importJob](tx, kindImport, row.Key)
			if err != nil || j == nil || !im.left(j) {
				return err
			}
			j.unlease()
			return saveJob(tx, j)
		}, store.Touch{Kind: kindImport, Key: row.Key})
		if err != nil {
			return err
		}
	}
	return nil
}

// left reports whether a job has a lease of this node's, before it took any.
func (im *Imports) left(j *importJob) bool {
	return j.Lease != "" && j.LeaseNode == im.cfg.Node && im.cfg.Node != "" && !j.over()
}

// leads reports whether this Region runs jobs now.
func (im *Imports) leads() bool { return im.cfg.Leads == nil || im.cfg.Leads() }

// ours is what finds the jobs that this Region may run.
func (im *Imports) ours() store.Index {
	if im.cfg.Leads == nil {
		return openIn(im.rooms.store.Region())
	}
	return openAll()
}

// dispatch takes every job it may, the oldest first, and starts it.
//
// Where Regions decide together, that with control runs all jobs. What the one
// before it still writes of a job has an older epoch of control, and is merged
// away; and the position, the counts and the lease are one document, so whichever
// Region goes on, each line before its position was counted once.
func (im *Imports) dispatch(ctx context.Context, jobs *sync.WaitGroup, slots chan struct{}) error {
	if !im.leads() {
		return nil
	}
	rows, err := im.rooms.store.Reader(ctx).Lookup(kindImport, im.ours(), openJobsMax)
	if err != nil {
		return err
	}
	for _, row := range rows {
		j, err := store.Decode[importJob](kindImport, row.Body)
		if err != nil {
			return err
		}
		if im.leased(j) {
			continue
		}
		free := true
		select {
		case slots <- struct{}{}:
		default:
			free = false
			if j.Status != pinpoint.JobStatusCreated {
				continue // it waits already
			}
		}
		j, err = im.claim(ctx, row.Key, free)
		if err != nil || j == nil {
			if free {
				<-slots
			}
			if err != nil {
				return err
			}
			continue
		}
		jobs.Go(func() {
			defer im.rouse()
			defer func() { <-slots }()
			im.run(ctx, j)
		})
	}
	return nil
}

// leased reports whether a node of this Region runs a job.
func (im *Imports) leased(j *importJob) bool {
	return j.Lease != "" && j.Region == im.rooms.store.Region() && j.LeaseUntil > im.rooms.now().UnixMilli()
}

// claim takes the lease of a job; nil when the job is another's, over, or has
// to wait for a slot of its account or, when free is false, of this node.
//
// Source: engagement 4.3, 13.5.
func (im *Imports) claim(ctx context.Context, key string, free bool) (*importJob, error) {
	var mine *importJob
	err := im.rooms.store.Update(ctx, func(tx *store.Tx) error {
		mine = nil
		j, err := store.Load[importJob](tx, kindImport, key)
		if err != nil || j == nil || j.over() || im.leased(j) {
			return err
		}
		if free {
			if free, err = im.accountHasSlot(tx, j); err != nil {
				return err
			}
		}
		if !free {
			if j.Status != pinpoint.JobStatusCreated {
				return nil
			}
			j.Status = pinpoint.JobStatusPendingJob
			return saveJob(tx, j)
		}
		if j.Status == pinpoint.JobStatusCreated || j.Status == pinpoint.JobStatusPendingJob {
			j.Status = pinpoint.JobStatusPreparingForInitialization
		}
		if j.Region != im.rooms.store.Region() {
			im.log.InfoContext(ctx, "import job taken over", "job_id", j.ID, "peer", j.Region, "processed", j.Processed)
		}
		j.Region, j.Lease, j.LeaseNode = im.rooms.store.Region(), im.rooms.ids.Hex(), im.cfg.Node
		im.renew(j)
		mine = j
		return saveJob(tx, j)
	}, store.Touch{Kind: kindImport, Key: key})
	return mine, err
}

func (im *Imports) accountHasSlot(tx *store.Tx, j *importJob) (bool, error) {
	rows, err := tx.Lookup(kindImport, openOf(j.Account), openJobsMax)
	if err != nil {
		return false, err
	}
	running := 0
	for _, row := range rows {
		other, err := store.Decode[importJob](kindImport, row.Body)
		if err != nil {
			return false, err
		}
		if other.ID != j.ID && im.leased(other) {
			running++
		}
	}
	return running < im.cfg.RunningPerAccount, nil
}

func (j *importJob) unlease() { j.Lease, j.LeaseNode, j.LeaseUntil = "", "", 0 }

func (im *Imports) renew(j *importJob) {
	j.LeaseUntil = im.rooms.now().Add(im.cfg.Lease).UnixMilli()
}

// step changes a job that this node has the lease of, and renews the lease.
// It repeats until the store takes it, ctx ends, or the lease is lost; the
// function may run more than once.
func (im *Imports) step(ctx context.Context, mine *importJob, fn func(*store.Tx, *importJob) error, touch ...store.Touch) error {
	wait := importRetryMin
	touch = append(touch, store.Touch{Kind: kindImport, Key: mine.key()})
	for {
		err := im.rooms.store.Update(ctx, func(tx *store.Tx) error {
			j, err := store.Load[importJob](tx, kindImport, mine.key())
			if err != nil {
				return err
			}
			if j == nil || j.Lease != mine.Lease {
				return errLost
			}
			if !im.leads() {
				return errLed
			}
			im.renew(j)
			if err := fn(tx, j); err != nil {
				return err
			}
			return saveJob(tx, j)
		}, touch...)
		if err == nil || errors.Is(err, errLost) || errors.Is(err, errLed) || ctx.Err() != nil || lineFault(err) {
			return err
		}
		im.log.WarnContext(ctx, "import waits for the store", "job_id", mine.ID, "error", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, importRetryMax)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lineFault reports whether an error is the data's, not the store's.
func lineFault(err error) bool {
	switch aws.KindOf(err) {
	case aws.KindInvalid, aws.KindQuota, aws.KindNotFound, aws.KindConflict, aws.KindForbidden:
		return true
	}
	return false
}

// run runs a job whose lease this node has just taken.
func (im *Imports) run(ctx context.Context, j *importJob) {
	ctx, cancel := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	defer renewing.Wait()
	defer cancel(nil)
	renewing.Go(func() { im.keepLease(ctx, j, cancel) })

	err := im.work(ctx, j)
	switch {
	case err == nil, errors.Is(err, errLost):
	case ctx.Err() != nil, errors.Is(err, errLed):
		im.release(ctx, j)
	case lineFault(err):
		err = im.step(ctx, j, func(_ *store.Tx, j *importJob) error {
			j.note(failure{Message: describe(err)})
			j.Status, j.Completed = pinpoint.JobStatusFailed, aws.Timestamp(im.rooms.now())
			return nil
		})
		if err != nil {
			im.log.WarnContext(ctx, "import job not closed", "job_id", j.ID, "error", err)
		}
	default:
		// It is tried again when the lease has run out.
		im.log.ErrorContext(ctx, "import job stopped", "job_id", j.ID, "error", err)
	}
}

// keepLease renews the lease while the job waits for something other than the
// store, and ends the job when the lease is gone.
func (im *Imports) keepLease(ctx context.Context, j *importJob, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(im.cfg.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := im.step(ctx, j, func(*store.Tx, *importJob) error { return nil }); err != nil && ctx.Err() == nil {
				cancel(err)
				return
			}
		}
	}
}

const releaseTimeout = 5 * time.Second

// release gives the lease back when the node stops, or its Region does not run the
// jobs any more, so that nobody need wait for it to run out.
func (im *Imports) release(ctx context.Context, mine *importJob) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	err := im.rooms.store.Update(ctx, func(tx *store.Tx) error {
		j, err := store.Load[importJob](tx, kindImport, mine.key())
		if err != nil || j == nil || j.Lease != mine.Lease || j.over() {
			return err
		}
		j.unlease()
		return saveJob(tx, j)
	})
	if err != nil {
		im.log.WarnContext(ctx, "lease of an import job not released", "job_id", mine.ID, "error", err)
	}
}

// work takes a job to its end, from wherever it is. A fault fails the job.
func (im *Imports) work(ctx context.Context, j *importJob) error {
	files, err := im.files(ctx, j)
	if err != nil {
		return err
	}
	if j.Status != pinpoint.JobStatusCompleting && j.Status != pinpoint.JobStatusFailing {
		if err := im.read(ctx, j, files); err != nil {
			return err
		}
	}
	return im.step(ctx, j, func(tx *store.Tx, j *importJob) error {
		if j.over() {
			return nil // an earlier try was committed, and its answer lost
		}
		j.Status = pinpoint.JobStatusCompleted
		if j.FailedPieces > 0 {
			j.Status = pinpoint.JobStatusFailed
		}
		j.Completed = aws.Timestamp(im.rooms.now())
		// A segment that lacks a file is not fit for use.
		if *j.Definition.DefineSegment && j.FailedPieces == 0 {
			return im.segments.FinishImport(tx, j.App, j.SegmentID)
		}
		return nil
	})
}

// read imports everything between the job's position and the end of its files:
// one goroutine reads and encodes, this one commits.
func (im *Imports) read(ctx context.Context, j *importJob, files []sourceFile) error {
	ctx, cancel := context.WithCancel(ctx)
	chunks := make(chan *chunk, 1)
	failed := make(chan error, 1)
	r := &importReader{im: im, job: j, files: files, yield: func(c *chunk) error {
		select {
		case chunks <- c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() {
		defer close(chunks)
		failed <- r.read(ctx)
	})
	for c := range chunks {
		err := im.step(ctx, j, func(tx *store.Tx, j *importJob) error { return im.take(tx, j, c, files) }, c.touches...)
		if err != nil {
			return err
		}
	}
	return <-failed
}

// files lists what the job reads, once: the list and everything that follows
// from it are committed together.
func (im *Imports) files(ctx context.Context, j *importJob) ([]sourceFile, error) {
	if j.Listed {
		files, err := store.Load[[]sourceFile](im.rooms.store.Reader(ctx), kindImportFiles, j.key())
		if err != nil {
			return nil, err
		}
		if files == nil {
			return nil, fmt.Errorf("the list of files of import job %s is gone", j.ID)
		}
		return *files, nil
	}
	if err := im.step(ctx, j, func(_ *store.Tx, j *importJob) error {
		j.Status = pinpoint.JobStatusInitializing
		return nil
	}); err != nil {
		return nil, err
	}
	files, err := im.listFiles(ctx, j)
	if err != nil {
		return nil, err
	}
	return files, im.step(ctx, j, func(tx *store.Tx, j *importJob) error {
		if j.Listed {
			return nil // as above
		}
		j.Listed, j.Pieces, j.Status = true, len(files), pinpoint.JobStatusProcessing
		if *j.Definition.DefineSegment {
			s := ImportSegment{ID: j.SegmentID, Name: deref(j.Definition.SegmentName), Account: j.Account, JobID: j.ID, Definition: j.Definition}
			id, err := im.segments.CreateImport(tx, j.App, s)
			if err != nil {
				return err
			}
			j.SegmentID = id
			j.Definition.SegmentId = &id
		}
		return store.Save(tx, kindImportFiles, j.key(), &files)
	})
}

// listFiles lists the files and holds them to the bounds.
func (im *Imports) listFiles(ctx context.Context, j *importJob) ([]sourceFile, error) {
	name, p, err := splitURL(j.Definition.S3Url)
	if err != nil {
		return nil, err
	}
	for i, b := range im.buckets {
		files, ok, err := b.list(ctx, name, p, im.cfg.FilesMax)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			im.log.WarnContext(ctx, "files of an import job not listed", "job_id", j.ID, "error", err)
			return nil, aws.Invalid("S3Url: the files could not be listed")
		}
		if !ok {
			continue
		}
		total := int64(0)
		for k := range files {
			files[k].Bucket = i
			total += files[k].Size
		}
		switch {
		case len(files) == 0:
			return nil, aws.Invalid("S3Url: there is no file of that name or below it")
		case len(files) > im.cfg.FilesMax:
			return nil, aws.Quota("S3Url: more than %d files", im.cfg.FilesMax)
		case total > im.cfg.BytesMax:
			return nil, aws.Quota("S3Url: the files have %d bytes, more than %d", total, im.cfg.BytesMax)
		}
		return files, nil
	}
	return nil, aws.Invalid("S3Url: there is no such bucket")
}

// take imports a chunk. It runs in one update with the job's progress, so the
// chunk is either imported and behind the position, or neither.
func (im *Imports) take(tx *store.Tx, j *importJob, c *chunk, files []sourceFile) error {
	if j.Position == c.to && c.from != c.to {
		return nil // an earlier try was committed, and its answer lost
	}
	if j.Position != c.from {
		return errLost
	}
	if err := im.rooms.memory.own(tx, j.Account, j.App); err != nil {
		return err
	}
	members := ImportMembers{Channels: map[string]int{}}
	for i := range c.items {
		it := &c.items[i]
		fault := it.fault
		if fault == "" {
			err := im.takeItem(tx, j, it, &members)
			if err != nil && !lineFault(err) {
				return err
			}
			if err != nil {
				fault = describe(err)
			}
		}
		if it.line > 0 {
			j.Processed++
		}
		if fault == "" {
			continue
		}
		f := failure{File: files[it.file].Key, Line: it.line, Message: fault}
		if n := j.note(f); n < failuresListed {
			key := binary.BigEndian.AppendUint32([]byte(j.key()), uint32(n))
			if err := store.Save(tx, kindImportFailure, string(key), &f); err != nil {
				return err
			}
		}
	}
	if *j.Definition.DefineSegment && len(members.EndpointIDs)+len(members.UserIDs) > 0 {
		if err := im.segments.AddMembers(tx, j.App, j.SegmentID, members); err != nil {
			return err
		}
	}
	j.CompletedPieces += c.completed
	j.FailedPieces += c.failed
	j.Position = c.to
	if c.last {
		j.Status = pinpoint.JobStatusCompleting
		if j.FailedPieces > 0 {
			j.Status = pinpoint.JobStatusFailing
		}
	}
	return nil
}

// note counts a failure, keeps the first hundred, and returns how many there
// were before it.
func (j *importJob) note(f failure) int {
	if len(j.Failures) < failuresShown {
		j.Failures = append(j.Failures, f.String())
	}
	j.Failed++
	return j.Failed - 1
}

// takeItem imports one line. Source: engagement 4.1, 4.2.
func (im *Imports) takeItem(tx *store.Tx, j *importJob, it *item, m *ImportMembers) error {
	if it.patch == nil {
		return takeUser(tx, j.App, it.user, m)
	}
	p := it.patch
	if *j.Definition.RegisterEndpoints {
		channel, err := im.rooms.write(tx, p)
		if err != nil {
			return err
		}
		m.add(p.id, p.key, channel)
		return nil
	}
	key, e, err := stored(tx, p)
	if err != nil {
		return err
	}
	if e == nil {
		return aws.NotFound("the endpoint does not exist, and RegisterEndpoints is false")
	}
	m.add(e.ID, key, e.ChannelType)
	return nil
}

func (m *ImportMembers) add(id, key, channel string) {
	m.EndpointIDs = append(m.EndpointIDs, id)
	m.EndpointKeys = append(m.EndpointKeys, key)
	if channel != "" {
		m.Channels[channel]++
	}
}

// stored finds the endpoint that a line means: by its id or, when it has none,
// as the holder of its address.
func stored(tx *store.Tx, p *Patch) (key string, e *Endpoint, err error) {
	if !p.made {
		e, err = LoadKey(tx, p.key)
		return p.key, e, err
	}
	if p.address == "" || p.channel == "" {
		return "", nil, aws.Invalid("Id: the line has neither an id nor an address with its channel")
	}
	rows, err := tx.Lookup(KindEndpoint, ByAddress(p.app, p.channel, p.address), 1)
	if err != nil || len(rows) == 0 {
		return "", nil, err
	}
	e, err = Read(p.app, rows[0].Body)
	return rows[0].Key, e, err
}

// takeUser takes a user of a user-id file, who must have an endpoint.
func takeUser(tx *store.Tx, app, userID string, m *ImportMembers) error {
	all, err := UserEndpoints(tx, app, userID)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return aws.NotFound("User.UserId: the user has no endpoint")
	}
	m.UserIDs = append(m.UserIDs, userID)
	for _, e := range all {
		if e.ChannelType != "" {
			m.Channels[e.ChannelType]++
		}
	}
	return nil
}
