-- The statements of the memory, and the pieces that they are put together from. The code fills in the names in braces:
-- lists of columns, conditions over `mem_docs AS m`, and other pieces.

-- name: doc_columns
-- Every statement that returns documents adds `vector`, the embedding in binary or NULL.
m.id, m.tenant_id, m.content, m.type, m.metadata, m.work_item_id, m.created_at, m.updated_at,
m.embedding IS NOT NULL AS has_embedding, m.embedding_model, m.document_id, m.chunk_no

-- name: get
-- Index: the primary key.
SELECT {doc_columns}, CASE WHEN %(with_embedding)s THEN vector_send(m.embedding) END AS vector
FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS given (id, n)
JOIN mem_docs AS m ON m.id = given.id
WHERE %(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s
ORDER BY given.n

-- name: update
-- Index: the primary key.
UPDATE mem_docs AS m
SET {assignments}, updated_at = GREATEST(statement_timestamp(), m.updated_at + interval '1 microsecond')
WHERE m.id = %(id)s::uuid AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
    AND (%(since)s::timestamptz IS NULL OR m.updated_at <= %(since)s::timestamptz)
RETURNING {doc_columns}, NULL AS vector

-- name: delete
-- The rows are locked in the order of their ids, as in every batch. Chunks go with their documents.
WITH found AS (
    SELECT m.id FROM mem_docs AS m WHERE {condition} AND m.document_id IS NULL ORDER BY m.id FOR UPDATE
), gone AS (
    DELETE FROM mem_docs AS d USING found WHERE d.id = found.id RETURNING d.id
)
SELECT count(*) FROM gone

-- name: in_share
(%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
    AND (uuid_hash(m.id)::bigint + 2147483648) %% %(shares)s = %(share)s

-- name: missing_embeddings
-- Index: mem_docs_missing_embedding_idx, read in its order.
SELECT {doc_columns}, NULL AS vector
FROM mem_docs AS m
WHERE m.embedding IS NULL AND m.chunk_no IS DISTINCT FROM 0 AND {in_share}
ORDER BY m.created_at, m.id
LIMIT %(limit)s

-- name: missing_of_model
-- Indexes: mem_docs_missing_embedding_idx, and mem_docs_embedding_model_idx, which also finds each next model, so that a
-- million documents of the asked one are not read.
WITH RECURSIVE models (name) AS (
    SELECT min(embedding_model)::text FROM mem_docs WHERE embedding IS NOT NULL
    UNION ALL
    SELECT (
        SELECT min(embedding_model)::text FROM mem_docs WHERE embedding IS NOT NULL AND embedding_model > models.name
    )
    FROM models WHERE models.name IS NOT NULL
),
missing AS MATERIALIZED (
    (
        SELECT m.id, m.created_at FROM mem_docs AS m
        WHERE m.embedding IS NULL AND m.chunk_no IS DISTINCT FROM 0 AND {in_share}
        ORDER BY m.created_at, m.id LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT m.id, m.created_at FROM mem_docs AS m
        WHERE m.embedding IS NOT NULL AND m.embedding_model IS NULL AND {in_share}
        ORDER BY m.created_at, m.id LIMIT %(limit)s
    )
    UNION ALL
    SELECT others.id, others.created_at FROM models, LATERAL (
        SELECT m.id, m.created_at FROM mem_docs AS m
        WHERE m.embedding IS NOT NULL AND m.embedding_model = models.name AND {in_share}
        ORDER BY m.created_at, m.id LIMIT %(limit)s
    ) AS others
    WHERE models.name <> %(model)s
    ORDER BY created_at, id
    LIMIT %(limit)s
)
SELECT {doc_columns}, NULL AS vector
FROM missing JOIN mem_docs AS m ON m.id = missing.id
ORDER BY m.created_at, m.id

-- name: set_embeddings
-- Index: the primary key. The rows are locked in the order of their ids, as in every batch.
WITH given AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(vectors)s::text[], %(hashes)s::bytea[])
        AS given (id, embedding, content_hash)
), found AS (
    SELECT m.id, given.embedding
    FROM mem_docs AS m JOIN given ON given.id = m.id
    WHERE (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
        AND (given.content_hash IS NULL OR m.content_hash = given.content_hash) AND m.chunk_no IS DISTINCT FROM 0
    ORDER BY m.id
    FOR NO KEY UPDATE OF m
)
UPDATE mem_docs AS m
SET embedding = found.embedding::vector, embedding_model = %(model)s,
    updated_at = GREATEST(statement_timestamp(), m.updated_at + interval '1 microsecond')
FROM found
WHERE m.id = found.id
RETURNING m.id


-- Documents stored: new ones by `load`, new and old ones by `upsert`.

-- name: stored_columns
-- In the order of `rows.pack`.
id, tenant_id, work_item_id, type, content, metadata, embedding, embedding_model, chunk_no

-- name: given
-- The rows that are sent as parameters.
SELECT id, tenant_id, work_item_id, type, content, metadata, embedding::vector, embedding_model, chunk_no
FROM unnest(
    %(ids)s::uuid[], %(tenants)s::text[], %(items)s::uuid[], %(types)s::mem_doc_type[], %(contents)s::text[],
    %(metadata)s::jsonb[], %(embeddings)s::text[], %(models)s::text[], %(chunk_nos)s::int[]
) AS given (id, tenant_id, work_item_id, type, content, metadata, embedding, embedding_model, chunk_no)

-- name: copy
COPY {table} ({stored_columns}) FROM STDIN BINARY

-- name: load
INSERT INTO mem_docs ({stored_columns})
{given}

-- name: upsert
-- The rows come in the order of their ids, from `given` or from `copied`, so that two batches with the same documents
-- never wait for each other in a circle. A document of another tenant, or a chunk, is not touched, and its id not
-- returned. A document that stays as it is gets locked all the same, so that it still exists when the batch commits.
INSERT INTO mem_docs AS m ({stored_columns})
{source}
ON CONFLICT (id) DO UPDATE
{action}
RETURNING m.id, m.chunk_no IS NOT NULL AS chunked

-- name: on_conflict_update
-- An embedding describes a content: it is kept if the content is the same and no other embedding is given. The chunks that
-- a document had are replaced by later statements, which see them all, because the document is locked by then.
SET work_item_id = EXCLUDED.work_item_id, type = EXCLUDED.type, content = EXCLUDED.content,
    metadata = EXCLUDED.metadata,
    embedding = COALESCE(
        EXCLUDED.embedding, CASE WHEN m.content = EXCLUDED.content AND EXCLUDED.chunk_no IS NULL THEN m.embedding END
    ),
    embedding_model = CASE
        WHEN EXCLUDED.embedding IS NOT NULL THEN EXCLUDED.embedding_model
        WHEN m.content = EXCLUDED.content AND EXCLUDED.chunk_no IS NULL THEN m.embedding_model
    END,
    chunk_no = COALESCE(EXCLUDED.chunk_no, m.chunk_no),
    updated_at = GREATEST(statement_timestamp(), m.updated_at + interval '1 microsecond')
WHERE m.tenant_id = EXCLUDED.tenant_id AND m.document_id IS NULL

-- name: on_conflict_keep
SET metadata = EXCLUDED.metadata WHERE FALSE

-- name: chunks
-- Index: mem_docs_document_id_idx.
SELECT {doc_columns}, CASE WHEN %(with_embedding)s THEN vector_send(m.embedding) END AS vector
FROM mem_docs AS m
WHERE m.document_id = %(id)s::uuid AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
ORDER BY m.chunk_no

-- name: delete_chunks
-- Index: mem_docs_document_id_idx.
DELETE FROM mem_docs WHERE document_id = ANY (%(ids)s::uuid[])

-- name: not_chunked
-- Index: the primary key.
UPDATE mem_docs SET chunk_no = NULL WHERE id = ANY (%(ids)s::uuid[])

-- name: load_chunks
-- Index: the primary key. A chunk has the values of its document, so that filters match both or neither.
INSERT INTO mem_docs (
    id, tenant_id, work_item_id, type, content, metadata, created_at, embedding, embedding_model, document_id, chunk_no
)
SELECT given.id, d.tenant_id, d.work_item_id, d.type, given.content, d.metadata, d.created_at, given.embedding::vector,
    given.embedding_model, d.id, given.chunk_no
FROM unnest(
    %(ids)s::uuid[], %(documents)s::uuid[], %(chunk_nos)s::int[], %(contents)s::text[], %(embeddings)s::text[],
    %(models)s::text[]
) AS given (id, document_id, chunk_no, content, embedding, embedding_model)
JOIN mem_docs AS d ON d.id = given.document_id

-- name: update_chunks
-- Index: mem_docs_document_id_idx.
UPDATE mem_docs AS m
SET work_item_id = d.work_item_id, type = d.type, metadata = d.metadata,
    updated_at = GREATEST(statement_timestamp(), m.updated_at + interval '1 microsecond')
FROM mem_docs AS d
WHERE d.id = %(id)s::uuid AND m.document_id = d.id

-- name: create_copied
CREATE TEMPORARY TABLE copied_mem_docs WITH (toast_tuple_target = 8160) ON COMMIT DROP
AS SELECT {stored_columns} FROM mem_docs WITH NO DATA

-- name: store_plain
ALTER TABLE pg_temp.copied_mem_docs ALTER COLUMN embedding SET STORAGE PLAIN

-- name: copied
TABLE pg_temp.copied_mem_docs

-- name: drop_copied
DROP TABLE pg_temp.copied_mem_docs

-- name: may_create_tables
SELECT has_database_privilege(current_database(), 'TEMPORARY')

-- name: item_tenants
-- Index: the primary key.
SELECT id, tenant_id FROM work_items
WHERE id = ANY (%(ids)s::uuid[]) AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)

-- name: doc_tenants
-- Index: the primary key.
SELECT id, tenant_id FROM mem_docs WHERE id = ANY (%(ids)s::uuid[]) AND document_id IS NULL

-- name: read_committed
-- For `lock_contents`: under a stricter level, which may be the role's default, the batch would not see what the batch
-- before it has stored.
SET TRANSACTION ISOLATION LEVEL READ COMMITTED

-- name: lock_contents
-- One batch of a tenant after the other.
SELECT pg_advisory_xact_lock(hashtextextended('myloware_store mem_docs ' || %(owner)s, 0))

-- name: same_contents
-- Index: mem_docs_tenant_id_content_hash_idx.
SELECT given.n, m.id
FROM unnest(%(tenants)s::text[], %(hashes)s::bytea[], %(types)s::mem_doc_type[], %(items)s::uuid[]) WITH ORDINALITY
    AS given (tenant_id, content_hash, type, work_item_id, n)
CROSS JOIN LATERAL (
    SELECT id FROM mem_docs
    WHERE tenant_id = given.tenant_id AND content_hash = given.content_hash AND type = given.type
        AND work_item_id IS NOT DISTINCT FROM given.work_item_id AND document_id IS NULL
    ORDER BY created_at, id
    LIMIT 1
) AS m


-- Searches. They return the columns of a `Hit` in its order: id, content, type, metadata, work_item_id, score,
-- similarity, vector_rank, text_rank, highlight, embedding_model, document_id, chunk_no,
-- embedding.

-- name: hits
-- The end of a search that is made of common table expressions: the documents are read for the hits alone.
WITH {legs}
SELECT m.id, m.content, m.type, m.metadata, m.work_item_id, {score}, {similarity}, {vector_rank}, {text_rank},
    {highlight}, m.embedding_model, m.document_id, m.chunk_no, {embedding}
FROM {ranked} AS r
JOIN mem_docs AS m ON m.id = r.id
ORDER BY {order}

-- name: nearest_alone
-- A whole search by vector with one scan and one sort: planning a search of few documents costs as much as running it.
-- It sorts by what no index serves, because relaxed iterative scans return rows out of order and the planner takes
-- them for sorted.
SELECT {distinct} id, content, type, metadata, work_item_id, similarity, similarity, NULL, NULL, NULL, embedding_model,
    document_id, chunk_no, {embedding}
FROM {source} AS m,
    LATERAL (SELECT 1 - least(2, greatest(0, distance)) AS similarity) AS s
WHERE distance <= %(furthest)s
ORDER BY similarity DESC, id
LIMIT %(nearest)s

-- name: asked
-- The vector is sent and parsed once, however many legs compare with it.
asked AS MATERIALIZED (SELECT %(vector)s::vector AS v)

-- name: indexed
-- Index: mem_docs_embedding_idx.
SELECT {columns}, m.embedding <=> {vector} AS distance
FROM mem_docs AS m
WHERE m.embedding IS NOT NULL AND {condition}
ORDER BY distance
LIMIT {limit}

-- name: compared
-- Exact: adding 0 makes an expression that no vector index serves.
SELECT {columns}, (m.embedding <=> {vector}) + 0 AS distance
FROM mem_docs AS m
WHERE m.embedding IS NOT NULL AND {condition}
ORDER BY distance, m.id
LIMIT %(nearest)s

-- name: sampled
-- Whether about as many documents as `many` meet a filter.
sampled AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE {condition}) >= %(share)s * count(*) AS many
    FROM mem_docs AS m TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (0)
    WHERE m.embedding IS NOT NULL
)

-- name: near
-- The nearest of all legs. A NaN, the distance to a zero vector that was not stored by this library, is left out.
-- Rounding in float32 puts the distance of a vector to itself below 0.
near AS MATERIALIZED (
    SELECT id, least(2, greatest(0, min(distance))) AS distance
    FROM ({union}) AS legs
    WHERE distance <= %(furthest)s
    GROUP BY id
    ORDER BY 2, id
    LIMIT %(nearest)s
)

-- name: any_word
-- All matches are ranked by any of the words: ts_rank of an AND is quadratic in their positions, and next to 0 for an
-- AND with excluded words.
replace(plainto_tsquery('english', %(words)s)::text, ' & ', ' | ')::tsquery

-- name: every
-- Index: mem_docs_search_idx. `every` and `any_of` are read only as far as the LIMITs ask, but are planned as if they
-- were read whole: with LIMITs of their own the planner would hope to find enough matches early in a sequential scan.
every AS MATERIALIZED (
    SELECT m.id, ts_rank(m.search, {any_word}, 33) AS rank
    FROM mem_docs AS m
    WHERE querytree({every}) NOT IN ('', 'T') AND m.search @@ {every} AND {condition}
),
best AS MATERIALIZED (
    SELECT id, {above} + rank::float8 AS score
    FROM (SELECT id, rank FROM every LIMIT greatest({ranked}, %(depth)s)) AS ranked
    ORDER BY rank DESC, id
    LIMIT %(depth)s
)

-- name: too_few
-- A leg with this condition runs only if the ones before it found too few.
(SELECT count(*) FROM best) < %(depth)s

-- name: any_of
any_of AS MATERIALIZED (
    SELECT m.id, ts_rank(m.search, {any_word}, 33) AS rank
    FROM mem_docs AS m
    WHERE {too_few} AND querytree({any}) NOT IN ('', 'T') AND m.search @@ {any} AND {condition}
        AND m.id NOT IN (SELECT id FROM best)
)

-- name: from_best
SELECT id, score FROM best

-- name: from_any_of
(
    SELECT id, rank::float8 FROM (SELECT id, rank FROM any_of LIMIT greatest({ranked}, %(depth)s)) AS ranked
    ORDER BY rank DESC, id
    LIMIT %(depth)s
)

-- name: latest
-- Index: mem_docs_updated_at_idx, for what no text index serves.
latest AS MATERIALIZED (
    SELECT m.id, m.updated_at, m.content, m.search
    FROM mem_docs AS m
    WHERE {too_few} AND {condition}
    ORDER BY m.updated_at DESC
    LIMIT {latest}
)

-- name: from_latest_without
-- The query has excluded words only.
(
    SELECT id, 1 / (1 + row_number() OVER (ORDER BY updated_at DESC, id))::float8 FROM latest
    WHERE querytree({every}) = 'T' AND search @@ {every}
    ORDER BY 2 DESC
    LIMIT %(depth)s
)

-- name: from_latest_with
-- Text without blanks between words. The content is decompressed once, not once for each part.
(
    SELECT id, n / {parts}::float8
    FROM latest,
        LATERAL (SELECT left(content, {latest_chars}) AS beginning OFFSET 0) AS text,
        LATERAL (
            SELECT count(*) AS n FROM unnest(%(parts)s::text[]) AS part WHERE strpos(beginning, part) > 0
        ) AS held
    WHERE n >= {least}
    ORDER BY n DESC, id
    LIMIT %(depth)s
)

-- name: found
found AS MATERIALIZED (
    SELECT id, max(score) AS score FROM ({union}) AS matches
    GROUP BY id
    ORDER BY max(score) DESC, id
    LIMIT %(depth)s
)

-- name: highlight
ts_headline('english',
    regexp_replace(replace(left(m.content, {chars}), '<!--', ' '), '[^[:space:]]{{255}}', E'\\& ', 'g'), {query},
    'StartSel=**, StopSel=**, MaxFragments=2, MaxWords=24, MinWords=8, FragmentDelimiter= ... ')

-- name: fused
-- Reciprocal rank fusion of `near` and `found`.
fused AS MATERIALIZED (
    SELECT id, n.distance, n.place AS vector_rank, f.place AS text_rank,
        COALESCE(%(vector_weight)s::float8 / (%(rrf_k)s + n.place), 0)
            + COALESCE(%(text_weight)s::float8 / (%(rrf_k)s + f.place), 0) AS score
    FROM (SELECT id, distance, row_number() OVER (ORDER BY distance, id) AS place FROM near) AS n
    FULL JOIN (SELECT id, row_number() OVER (ORDER BY score DESC, id) AS place FROM found) AS f USING (id)
    ORDER BY score DESC, id
    LIMIT %(k)s
)

-- name: fused_similarity
-- A document outside of the vector's pool has no distance yet: it is NULL without a vector, and NaN for a zero vector.
1 - COALESCE(r.distance, (
    SELECT least(2, greatest(0, distance)) FROM asked, LATERAL (SELECT m.embedding <=> asked.v) AS d (distance)
    WHERE distance <= %(furthest)s AND {of_model}
))
