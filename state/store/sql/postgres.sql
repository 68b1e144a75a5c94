-- name: schema
-- Owner: state/store. The same tables as on SQLite; ids come from doc_id in
-- runs of 1,000, so that a node can number rows before it writes them.
CREATE TABLE IF NOT EXISTS doc (
    id   bigint PRIMARY KEY,
    kind text NOT NULL,
    key  bytea NOT NULL,
    rev  bigint NOT NULL,
    body bytea NOT NULL
) WITH (fillfactor = 85);
ALTER TABLE doc ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX IF NOT EXISTS doc_key ON doc (kind, key);
CREATE SEQUENCE IF NOT EXISTS doc_id INCREMENT BY 1000;
CREATE TABLE IF NOT EXISTS doc_index (
    hash bytea NOT NULL,
    doc  bigint NOT NULL,
    PRIMARY KEY (hash, doc)
);
CREATE TABLE IF NOT EXISTS log_head (
    stream      text PRIMARY KEY,
    incarnation text NOT NULL,
    n           bigint NOT NULL,
    hash        bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS log_block (
    stream      text NOT NULL,
    n           bigint NOT NULL,
    incarnation text NOT NULL,
    at          bigint NOT NULL,
    hash        bytea NOT NULL,
    body        bytea NOT NULL,
    PRIMARY KEY (stream, n)
);
ALTER TABLE log_block ALTER COLUMN body SET STORAGE EXTERNAL;
-- The last commit of each opening of the database, written with it, for a node
-- to look into a commit whose answer it lost. A row for each opening; those that
-- wrote nothing for a day are removed when the database is next opened.
CREATE TABLE IF NOT EXISTS writer (
    node text PRIMARY KEY,
    n    bigint NOT NULL,
    at   timestamptz NOT NULL
);

-- name: writer_set
INSERT INTO writer (node, n, at)
VALUES ($1, $2, now())
    ON CONFLICT (node) DO UPDATE
   SET n = excluded.n, at = excluded.at;

-- name: writer_get
-- A write, so that it waits for a commit that holds the row, or has it new.
INSERT INTO writer (node, n, at)
VALUES ($1, 0, now())
    ON CONFLICT (node) DO UPDATE
   SET at = excluded.at
RETURNING n;

-- name: writer_prune
DELETE FROM writer
 WHERE at < now() - interval '1 day';

-- name: lock
-- Serialises updates that name the same rows, on whichever node; the caller
-- sorts the numbers. Held to the end of the transaction.
SELECT pg_advisory_xact_lock(h)
  FROM unnest($1::bigint[]) AS h;

-- name: get
-- Rows by their keys; index doc_key.
SELECT d.id, d.kind, d.key, d.rev, d.body
  FROM unnest($1::text[], $2::bytea[]) AS want (kind, key)
  JOIN doc AS d ON d.kind = want.kind AND d.key = want.key;

-- name: list
SELECT id, key, rev, body
  FROM doc
 WHERE kind = $1 AND key >= $2 AND key < $3
 ORDER BY key
 LIMIT $4;

-- name: scan
SELECT id, kind, key, rev, body
  FROM doc
 WHERE id > $1
 ORDER BY id
 LIMIT $2;

-- name: lookup
-- Rows by keyed hashes; primary key of doc_index, then doc.
SELECT i.hash, d.id, d.kind, d.key, d.rev, d.body
  FROM doc_index AS i
  JOIN doc AS d ON d.id = i.doc
 WHERE i.hash = ANY ($1::bytea[])
 ORDER BY i.doc
 LIMIT $2;

-- name: insert
INSERT INTO doc (id, kind, key, rev, body)
SELECT id, kind, key, rev, body
  FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bytea[]) AS v (id, kind, key, rev, body)
    ON CONFLICT DO NOTHING;

-- name: update
-- Only rows that nobody changed since they were read.
UPDATE doc
   SET rev = v.rev + 1, body = v.body
  FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS v (id, rev, body)
 WHERE doc.id = v.id AND doc.rev = v.rev;

-- name: delete
DELETE FROM doc
 USING unnest($1::bigint[], $2::bigint[]) AS v (id, rev)
 WHERE doc.id = v.id AND doc.rev = v.rev;

-- name: index_add
INSERT INTO doc_index (hash, doc)
SELECT hash, doc
  FROM unnest($1::bytea[], $2::bigint[]) AS v (hash, doc)
    ON CONFLICT DO NOTHING;

-- name: index_drop
DELETE FROM doc_index
 USING unnest($1::bytea[], $2::bigint[]) AS v (hash, doc)
 WHERE doc_index.hash = v.hash AND doc_index.doc = v.doc;

-- name: ids
SELECT nextval('doc_id');

-- name: append
-- The last statement of a commit: takes the stream's head row and holds it, so
-- that the next block waits for this commit. The chain is sha256(previous
-- hash, sha256(body)).
  WITH head AS (
UPDATE log_head
   SET n = n + 1, hash = sha256(hash || $3::bytea)
 WHERE stream = $1 AND incarnation = $2
RETURNING n, hash
)
INSERT INTO log_block (stream, n, incarnation, at, hash, body)
SELECT $1, head.n, $2, $4, head.hash, $5
  FROM head
RETURNING n, hash;

-- name: head
SELECT incarnation, n, hash
  FROM log_head
 WHERE stream = $1;

-- name: head_set
INSERT INTO log_head (stream, incarnation, n, hash)
VALUES ($1, $2, $3, $4)
    ON CONFLICT (stream) DO UPDATE
   SET incarnation = excluded.incarnation, n = excluded.n, hash = excluded.hash;

-- name: blocks
SELECT n, incarnation, at, hash, body
  FROM log_block
 WHERE stream = $1 AND n > $2
 ORDER BY n
 LIMIT $3;

-- name: block_hash
SELECT hash
  FROM log_block
 WHERE stream = $1 AND n = $2;

-- name: trim
-- Removes, of a stream's $4 lowest blocks, those up to n that are older than a moment.
DELETE FROM log_block
 WHERE stream = $1 AND n <= $2 AND at < $3
   AND n < $4 + (
SELECT min(n)
  FROM log_block
 WHERE stream = $1
);
