-- name: schema
-- Owner: state/store. doc holds every row; it grows with what it describes and
-- rooms remove what they own. doc_entry says which row is found under a kind and
-- key, or under a keyed hash; it grows with doc. doc_young is the log of the
-- entries that are not in doc_entry yet; its length is bounded by what it holds,
-- and it is trimmed by commits. log_block grows with every commit and is trimmed
-- by Trim, by age. log_head does not grow.
CREATE TABLE IF NOT EXISTS doc (
    id   INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    key  BLOB NOT NULL,
    rev  INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS doc_entry (
    entry BLOB NOT NULL,
    doc   INTEGER NOT NULL,
    PRIMARY KEY (entry, doc)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS doc_young (
    n    INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);
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

-- name: rows
-- Rows by their ids, as many as there are; the primary key.
SELECT d.id, d.kind, d.key, d.rev, d.body
  FROM (VALUES (?)) AS want
 CROSS JOIN doc AS d
 WHERE d.id = want.column1;

-- name: under
-- Rows under an entry; primary key of doc_entry, then doc.
SELECT d.id, d.kind, d.key, d.rev, d.body
  FROM doc_entry AS i
  JOIN doc AS d ON d.id = i.doc
 WHERE i.entry = ?1
 ORDER BY i.doc
 LIMIT ?2;

-- name: under_many
-- Rows under entries, as many as there are; primary key of doc_entry, then doc.
SELECT i.entry, d.id, d.kind, d.key, d.rev, d.body
  FROM (VALUES (?)) AS want
 CROSS JOIN doc_entry AS i
 CROSS JOIN doc AS d
 WHERE i.entry = want.column1 AND d.id = i.doc
 ORDER BY i.doc
 LIMIT 10000;

-- name: list
-- Rows in the order of their entries from one to below another; primary key of
-- doc_entry, then doc.
SELECT d.id, d.kind, d.key, d.rev, d.body
  FROM doc_entry AS i
 CROSS JOIN doc AS d
 WHERE i.entry >= ?1 AND i.entry < ?2 AND d.id = i.doc
 ORDER BY i.entry
 LIMIT ?3;

-- name: scan
-- Rows in the order they were first written; the primary key.
SELECT id, kind, key, rev, body
  FROM doc
 WHERE id > ?1
 ORDER BY id
 LIMIT ?2;

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

-- name: entry_add
INSERT OR IGNORE INTO doc_entry (entry, doc)
VALUES (?1, ?2);

-- name: entry_drop
DELETE FROM doc_entry
 WHERE entry = ?1 AND doc = ?2;

-- name: entries
-- Entries after one, in order; the primary key.
SELECT entry, doc
  FROM doc_entry
 WHERE (entry, doc) > (?1, ?2)
 ORDER BY entry, doc
 LIMIT ?3;

-- name: young_add
INSERT INTO doc_young (n, body)
VALUES (?1, ?2);

-- name: young
SELECT n, body
  FROM doc_young
 WHERE n > ?1
 ORDER BY n
 LIMIT ?2;

-- name: young_drop
DELETE FROM doc_young
 WHERE n >= ?1 AND n <= ?2;

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
