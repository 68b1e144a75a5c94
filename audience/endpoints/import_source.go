package endpoints

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/everpoint/everpoint/aws"
)

// bucket is where imports read from.
type bucket interface {
	// list returns what an S3Url's path names: the file of exactly that name, or
	// every file whose name starts with it, in the order of their names. ok is
	// false when the bucket is not here. At most limit+1 files.
	list(ctx context.Context, name, path string, limit int) (files []sourceFile, ok bool, err error)
	// open reads a file from a byte on; errChanged when it is not the listed one.
	open(ctx context.Context, name string, f sourceFile, offset int64) (io.ReadCloser, error)
}

// sourceFile is a file as it was listed.
type sourceFile struct {
	Key     string
	Size    int64  // bytes, as stored
	Version string // tells whether the file is still the same
	Bucket  int    // index of the bucket that has it
}

var errChanged = errors.New("the file changed after the job had begun")

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	errBadURL  = aws.InvalidMember("S3Url", "S3Url: expected s3://bucket/name of a file or a prefix")
)

// splitURL splits s3://bucket/path. The path never leaves the bucket.
func splitURL(url string) (name, p string, err error) {
	const pathBytesMax = 1024
	rest, ok := strings.CutPrefix(url, "s3://")
	name, p, _ = strings.Cut(rest, "/")
	if !ok || !bucketName.MatchString(name) || strings.Contains(name, "..") || len(p) > pathBytesMax {
		return "", "", errBadURL
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "." || part == ".." {
			return "", "", errBadURL
		}
	}
	if strings.ContainsAny(p, "\x00\\") {
		return "", "", errBadURL
	}
	return name, p, nil
}

// localBucket is a directory of buckets. Nothing outside a bucket's directory
// is read, whatever names and links say.
type localBucket struct{ dir string }

func (b localBucket) root(name string) (*os.Root, error) {
	all, err := os.OpenRoot(b.dir)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	return all.OpenRoot(name)
}

func (b localBucket) list(ctx context.Context, name, p string, limit int) ([]sourceFile, bool, error) {
	root, err := b.root(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer root.Close()
	if st, err := root.Lstat(path.Clean("./" + p)); err == nil && st.Mode().IsRegular() && !strings.HasSuffix(p, "/") {
		return []sourceFile{{Key: p, Size: st.Size(), Version: version(st)}}, true, nil
	}
	// Below the last directory that the path names as a whole.
	start := path.Clean("./" + p[:strings.LastIndexByte(p, '/')+1])
	var files []sourceFile
	err = fs.WalkDir(root.FS(), start, func(key string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			if key == start && errors.Is(err, fs.ErrNotExist) {
				return fs.SkipAll
			}
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir():
			if key != "." && key != start && !strings.HasPrefix(key+"/", p) && !strings.HasPrefix(p, key) {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular() || !strings.HasPrefix(key, p):
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		files = append(files, sourceFile{Key: key, Size: st.Size(), Version: version(st)})
		if len(files) > limit {
			return fs.SkipAll
		}
		return nil
	})
	slices.SortFunc(files, func(x, y sourceFile) int { return strings.Compare(x.Key, y.Key) })
	return files, true, err
}

func version(st fs.FileInfo) string {
	return strconv.FormatInt(st.ModTime().UnixNano(), 36) + "-" + strconv.FormatInt(st.Size(), 36)
}

func (b localBucket) open(_ context.Context, name string, f sourceFile, offset int64) (io.ReadCloser, error) {
	root, err := b.root(name)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	file, err := root.Open(f.Key)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && version(st) != f.Version {
		err = errChanged
	}
	if err == nil {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// s3Bucket is an S3-compatible service.
type s3Bucket struct{ client *s3.Client }

func newS3Bucket(cfg ImportConfig) s3Bucket {
	var credentials awssdk.CredentialsProvider = awssdk.AnonymousCredentials{}
	if cfg.S3Credentials != nil {
		credentials = awssdk.CredentialsProviderFunc(func(ctx context.Context) (awssdk.Credentials, error) {
			id, secret, session, err := cfg.S3Credentials(ctx)
			return awssdk.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: session}, err
		})
	}
	return s3Bucket{s3.New(s3.Options{
		BaseEndpoint: &cfg.S3Endpoint, Region: cfg.S3Region, UsePathStyle: true, Credentials: credentials,
	})}
}

func (b s3Bucket) list(ctx context.Context, name, p string, limit int) ([]sourceFile, bool, error) {
	var files []sourceFile
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &name, Prefix: &p})
	for pages.HasMorePages() && len(files) <= limit {
		page, err := pages.NextPage(ctx)
		if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "NoSuchBucket" {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		for _, o := range page.Contents {
			f := sourceFile{Key: awssdk.ToString(o.Key), Size: awssdk.ToInt64(o.Size), Version: awssdk.ToString(o.ETag)}
			if f.Key == p {
				return []sourceFile{f}, true, nil
			}
			if strings.HasSuffix(f.Key, "/") {
				continue // a folder's marker
			}
			files = append(files, f)
		}
	}
	return files, true, nil
}

func (b s3Bucket) open(ctx context.Context, name string, f sourceFile, offset int64) (io.ReadCloser, error) {
	in := &s3.GetObjectInput{Bucket: &name, Key: &f.Key}
	if f.Version != "" {
		in.IfMatch = &f.Version
	}
	if offset > 0 {
		if offset >= f.Size {
			return io.NopCloser(strings.NewReader("")), nil
		}
		span := fmt.Sprintf("bytes=%d-", offset)
		in.Range = &span
	}
	out, err := b.client.GetObject(ctx, in)
	if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "PreconditionFailed" {
		return nil, errChanged
	}
	if err != nil {
		return nil, err
	}
	return out.Body, nil
}
