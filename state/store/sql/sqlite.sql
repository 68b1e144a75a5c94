-- name: schema
-- Owner: state/store. doc holds every row; it grows with what it describes and
-- rooms remove what they own. doc_index grows with doc. log_block grows with
-- every commit and is trimmed by Trim, by age. log_head and meta do not grow.
CREATE TABLE IF NOT EXISTS doc (
    id   INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    key  BLOB NOT NULL,
    rev  INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS doc_key ON doc (kind, key);
CREATE TABLE IF NOT EXISTS doc_index (
    hash BLOB NOT NULL,
    doc  INTEGER NOT NULL,
    PRIMARY KEY (hash, doc)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log_head (
    stream      TEXT PRIMARY KEY,
    incarnation TEXT NOT NULL,
    n           INTEGER NOT NULL,
    hash        BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS log_block (
    stream      TEXT NOT NULL,
    n           INTEGER NOT NULL,
    incarnation TEXT NOT NULL,
    at          INTEGER NOT NULL,
    hash        BLOB NOT NULL,
    body        BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS log_block_n ON log_block (stream, n);
CREATE TABLE IF NOT EXISTS meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- name: get
-- One row by its key; index doc_key.
SELECT id, rev, body
  FROM doc
 WHERE kind = ?1 AND key = ?2;

-- name: get_many
-- Rows by their keys, as many as there are pairs; index doc_key.
SELECT d.id, d.kind, d.key, d.rev, d.body
  FROM (VALUES (?, ?)) AS want
 CROSS JOIN doc AS d
 WHERE d.kind = want.column1 AND d.key = want.column2;

-- name: list
-- Rows of a kind in key order from one key to below another; index doc_key.
SELECT id, key, rev, body
  FROM doc
 WHERE kind = ?1 AND key >= ?2 AND key < ?3
 ORDER BY key
 LIMIT ?4;

-- name: scan
-- Rows in the order they were first written; the primary key.
SELECT id, kind, key, rev, body
  FROM doc
 WHERE id > ?1
 ORDER BY id
 LIMIT ?2;

-- name: lookup
-- Rows by a keyed hash; primary key of doc_index, then doc.
SELECT d.id, d.kind, d.key, d.rev, d.body
  FROM doc_index AS i
  JOIN doc AS d ON d.id = i.doc
 WHERE i.hash = ?1
 ORDER BY i.doc
 LIMIT ?2;

-- name: lookup_many
-- Rows by keyed hashes, as many as there are; primary key of doc_index, then doc.
SELECT i.hash, d.id, d.kind, d.key, d.rev, d.body
  FROM (VALUES (?)) AS want
 CROSS JOIN doc_index AS i
 CROSS JOIN doc AS d
 WHERE i.hash = want.column1 AND d.id = i.doc
 ORDER BY i.doc
 LIMIT 10000;

-- name: insert
INSERT INTO doc (id, kind, key, rev, body)
VALUES (?1, ?2, ?3, ?4, ?5);

-- name: update
UPDATE doc
   SET rev = ?2, body = ?3
 WHERE id = ?1;

-- name: delete
DELETE FROM doc
 WHERE id = ?1;

-- name: index_add
INSERT OR IGNORE INTO doc_index (hash, doc)
VALUES (?1, ?2);

-- name: index_drop
DELETE FROM doc_index
 WHERE hash = ?1 AND doc = ?2;

-- name: max_id
SELECT coalesce(max(id), 0)
  FROM doc;

-- name: head
SELECT incarnation, n, hash
  FROM log_head
 WHERE stream = ?1;

-- name: head_set
INSERT INTO log_head (stream, incarnation, n, hash)
VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (stream) DO UPDATE
   SET incarnation = excluded.incarnation, n = excluded.n, hash = excluded.hash;

-- name: block_add
INSERT INTO log_block (stream, n, incarnation, at, hash, body)
VALUES (?1, ?2, ?3, ?4, ?5, ?6);

-- name: blocks
-- Blocks after one, in order; index log_block_n.
SELECT n, incarnation, at, hash, body
  FROM log_block
 WHERE stream = ?1 AND n > ?2
 ORDER BY n
 LIMIT ?3;

-- name: block_hash
SELECT hash
  FROM log_block
 WHERE stream = ?1 AND n = ?2;

-- name: trim
-- Removes, of a stream's ?4 lowest blocks, those up to n that are older than a
-- moment; index log_block_n.
DELETE FROM log_block
 WHERE stream = ?1 AND n <= ?2 AND at < ?3
   AND n < ?4 + (
SELECT min(n)
  FROM log_block
 WHERE stream = ?1
);

-- name: meta_get
SELECT value
  FROM meta
 WHERE name = ?1;

-- name: meta_set
INSERT INTO meta (name, value)
VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE
   SET value = excluded.value;
