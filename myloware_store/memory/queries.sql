-- The statements of the memory, and the pieces that they are put together from. The code fills in the names in braces:
-- lists of columns, conditions over `mem_docs AS m`, and other pieces.

-- name: doc_columns
-- Every statement that returns documents adds `vector`, the embedding in binary or NULL.
m.id, m.tenant_id, m.content, m.type, m.metadata, m.work_item_id, m.created_at, m.updated_at,
m.embedding IS NOT NULL AS has_embedding, m.expires_at, m.embedding_model, m.document_id, m.chunk_no

-- name: visible
-- Every statement that finds documents has this condition: from `expires_at` on a document counts as deleted.
(m.expires_at IS NULL OR m.expires_at > statement_timestamp())

-- name: get
-- Index: the primary key.
SELECT {doc_columns}, CASE WHEN %(with_embedding)s THEN vector_send(m.embedding) END AS vector
FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS given (id, n)
JOIN mem_docs AS m ON m.id = given.id
WHERE {visible} AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
ORDER BY given.n

-- name: list
-- Index: mem_docs_created_at_idx or mem_docs_updated_at_idx, read in its order, with or without a tenant: entries of
-- other tenants are passed over in the index.
SELECT {doc_columns}, NULL AS vector
FROM mem_docs AS m
WHERE {after} AND {visible} AND m.document_id IS NULL AND {condition}
ORDER BY m.{column} {direction}, m.id {direction}
LIMIT %(limit)s

-- name: after
(m.{column}, m.id) {beyond} (%(after_time)s::timestamptz, %(after_id)s::uuid)

-- name: count
-- Three counts: without a filter, the first reads an index alone, and the others only what has expired, and chunks.
SELECT (SELECT count(*) FROM mem_docs AS m WHERE {condition})
    - (
        SELECT count(*) FROM mem_docs AS m
        WHERE m.expires_at <= statement_timestamp() AND m.document_id IS NULL AND {condition}
    )
    - (SELECT count(*) FROM mem_docs AS m WHERE m.document_id IS NOT NULL AND {condition})

-- name: update
-- Index: the primary key.
UPDATE mem_docs AS m
SET {assignments}, updated_at = GREATEST(statement_timestamp(), m.updated_at + interval '1 microsecond')
WHERE m.id = %(id)s::uuid AND {visible} AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
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

-- name: prune
-- Index: mem_docs_expires_at_idx. It never waits: rows that somebody has locked are left for the next time.
WITH found AS (
    SELECT m.id FROM mem_docs AS m
    WHERE m.expires_at <= statement_timestamp() AND m.document_id IS NULL
        AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
    ORDER BY m.expires_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM mem_docs AS d USING found WHERE d.id = found.id RETURNING d.id
)
SELECT count(*) FROM gone

-- name: only_in_lists
-- Index: mem_docs_metadata_idx. Whether a filter finds nothing, but would if equality looked into lists.
SELECT EXISTS (SELECT FROM mem_docs AS m WHERE {held} AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s))
    AND NOT EXISTS (SELECT FROM mem_docs AS m WHERE {equal} AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s))

-- name: in_share
(%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
    AND (uuid_hash(m.id)::bigint + 2147483648) %% %(shares)s = %(share)s

-- name: missing_embeddings
-- Index: mem_docs_missing_embedding_idx, read in its order.
SELECT {doc_columns}, NULL AS vector
FROM mem_docs AS m
WHERE m.embedding IS NULL AND m.chunk_no IS DISTINCT FROM 0 AND {visible} AND {in_share}
ORDER BY m.created_at, m.id
LIMIT %(limit)s

-- name: models
-- Index: mem_docs_embedding_model_idx finds each next model, so that a million documents of one are not read.
models (name) AS (
    SELECT min(m.embedding_model)::text FROM mem_docs AS m WHERE m.embedding IS NOT NULL AND {condition}
    UNION ALL
    SELECT (
        SELECT min(m.embedding_model)::text FROM mem_docs AS m
        WHERE m.embedding IS NOT NULL AND m.embedding_model > models.name AND {condition}
    )
    FROM models WHERE models.name IS NOT NULL
)

-- name: has_model
-- Index: mem_docs_embedding_model_idx, or one of the tenant. It is read as far as its first row, but planned as if it were
-- read whole, so that a tenant without documents is not looked for among those of all.
WITH of_model AS MATERIALIZED (SELECT FROM mem_docs AS m WHERE m.embedding IS NOT NULL AND {condition})
SELECT EXISTS (SELECT FROM of_model)

-- name: some_models
WITH RECURSIVE {models}
(SELECT name FROM models WHERE name IS NOT NULL LIMIT 10)
UNION ALL
SELECT NULL
WHERE EXISTS (SELECT FROM mem_docs AS m WHERE m.embedding IS NOT NULL AND m.embedding_model IS NULL AND {condition})

-- name: missing_of_model
-- Indexes: mem_docs_missing_embedding_idx and mem_docs_embedding_model_idx.
WITH RECURSIVE {models},
missing AS MATERIALIZED (
    (
        SELECT m.id, m.created_at FROM mem_docs AS m
        WHERE m.embedding IS NULL AND m.chunk_no IS DISTINCT FROM 0 AND {visible} AND {in_share}
        ORDER BY m.created_at, m.id LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT m.id, m.created_at FROM mem_docs AS m
        WHERE m.embedding IS NOT NULL AND m.embedding_model IS NULL AND {visible} AND {in_share}
        ORDER BY m.created_at, m.id LIMIT %(limit)s
    )
    UNION ALL
    SELECT others.id, others.created_at FROM models, LATERAL (
        SELECT m.id, m.created_at FROM mem_docs AS m
        WHERE m.embedding IS NOT NULL AND m.embedding_model = models.name AND {visible} AND {in_share}
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
        AND (given.content_hash IS NULL OR m.content_hash = given.content_hash) AND m.chunk_no IS DISTINCT FROM 0 AND {visible}
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
id, tenant_id, work_item_id, type, content, metadata, embedding, expires_at, embedding_model, chunk_no

-- name: given
-- The rows that are sent as parameters.
SELECT id, tenant_id, work_item_id, type, content, metadata, embedding::vector, expires_at, embedding_model, chunk_no
FROM unnest(
    %(ids)s::uuid[], %(tenants)s::text[], %(items)s::uuid[], %(types)s::mem_doc_type[], %(contents)s::text[],
    %(metadata)s::jsonb[], %(embeddings)s::text[], %(expiries)s::timestamptz[], %(models)s::text[], %(chunk_nos)s::int[]
) AS given (id, tenant_id, work_item_id, type, content, metadata, embedding, expires_at, embedding_model, chunk_no)

-- name: copy
COPY {table} ({stored_columns}) FROM STDIN BINARY

-- name: load
INSERT INTO mem_docs ({stored_columns})
{source}

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
-- a document had are replaced by later statements, which see them all, because the document is locked by then. A document
-- that was found to stand for another one (`found`), and has another content by now, is not touched.
SET work_item_id = EXCLUDED.work_item_id, type = EXCLUDED.type, content = EXCLUDED.content,
    metadata = EXCLUDED.metadata, expires_at = EXCLUDED.expires_at,
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
    AND (m.content = EXCLUDED.content OR NOT EXISTS (
        SELECT FROM unnest(%(found)s::uuid[], %(hashes)s::bytea[]) AS found (id, content_hash)
        WHERE found.id = m.id AND found.content_hash <> m.content_hash
    ))

-- name: on_conflict_keep
-- Added to `on_conflict_update`: an expired document is none that exists already.
AND m.expires_at <= statement_timestamp()

-- name: chunks
-- Index: mem_docs_document_id_idx.
SELECT {doc_columns}, CASE WHEN %(with_embedding)s THEN vector_send(m.embedding) END AS vector
FROM mem_docs AS m
WHERE m.document_id = %(id)s::uuid AND {visible} AND (%(tenant)s::text IS NULL OR m.tenant_id = %(tenant)s)
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
    id, tenant_id, work_item_id, type, content, metadata, created_at, expires_at, embedding, embedding_model, document_id,
    chunk_no
)
SELECT given.id, d.tenant_id, d.work_item_id, d.type, given.content, d.metadata, d.created_at, d.expires_at,
    given.embedding::vector, given.embedding_model, d.id, given.chunk_no
FROM unnest(
    %(ids)s::uuid[], %(documents)s::uuid[], %(chunk_nos)s::int[], %(contents)s::text[], %(embeddings)s::text[],
    %(models)s::text[]
) AS given (id, document_id, chunk_no, content, embedding, embedding_model)
JOIN mem_docs AS d ON d.id = given.document_id

-- name: update_chunks
-- Index: mem_docs_document_id_idx.
UPDATE mem_docs AS m
SET work_item_id = d.work_item_id, type = d.type, metadata = d.metadata, expires_at = d.expires_at,
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

-- name: row_security
SELECT row_security_active('mem_docs')

-- name: tenancy
SELECT tenancy_enforced('mem_docs')

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
-- Index: mem_docs_tenant_id_content_hash_idx. Before the table is analyzed, the planner takes one that begins with the tenant
-- and the type for as good, if it can.
SELECT given.n, m.id
FROM unnest(%(tenants)s::text[], %(hashes)s::bytea[], %(types)s::mem_doc_type[], %(items)s::uuid[]) WITH ORDINALITY
    AS given (tenant_id, content_hash, type, work_item_id, n)
CROSS JOIN LATERAL (
    SELECT id FROM mem_docs AS m
    WHERE tenant_id = given.tenant_id AND content_hash = given.content_hash AND (type = given.type) IS TRUE
        AND work_item_id IS NOT DISTINCT FROM given.work_item_id AND document_id IS NULL AND {visible}
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

-- name: ages
-- Index: the primary key. In days.
SELECT id, greatest(0, extract(epoch FROM statement_timestamp() - created_at)::float8 / 86400)
FROM mem_docs WHERE id = ANY (%(ids)s::uuid[])

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

-- name: every
query_all(%(phrases)s::text[], %(options)s::int[], %(excluded)s::text[], %(beginnings)s)

-- name: kept
query_all(ARRAY[]::text[], ARRAY[]::int[], %(excluded)s::text[], %(beginnings)s)

-- name: terms
-- A word that no document has is taken for a typing error, and for those that differ from it by one letter. Words that
-- several of the sample hold are none. The CTEs are read as far as their first row, but planned as if they were read whole.
terms AS MATERIALIZED (
    SELECT COALESCE((
        SELECT string_agg(quote_literal(spelling), ' | ')::tsquery
        FROM unnest(CASE
            WHEN (SELECT count(*) FROM (SELECT FROM sample WHERE search @@ term LIMIT 5) AS several) < 5 AND NOT (
                WITH held AS MATERIALIZED (SELECT FROM {term_held} AND {condition})
                SELECT EXISTS (SELECT FROM held)
            )
            THEN query_spellings(word)
        END) AS spelling
        WHERE (
            WITH held AS MATERIALIZED (SELECT FROM {spelling_held})
            SELECT EXISTS (SELECT FROM held)
        )
    ), term) AS term
    FROM query_terms(%(words)s)
)

-- name: prefix_terms
terms AS MATERIALIZED (
    SELECT query_beginning(beginning) AS term FROM query_beginnings(%(words)s) AS beginning
)

-- name: part_terms
-- All words of all documents are compared with those of the query. Of each, the shortest words that have it count.
terms AS MATERIALIZED (
    SELECT string_agg(quote_literal(word), ' | ')::tsquery AS term
    FROM (
        SELECT part, word, row_number() OVER (PARTITION BY part ORDER BY length(word), word) AS place
        FROM query_beginnings(%(words)s) AS part
        CROSS JOIN LATERAL (
            SELECT '%%' || part || '%%' AS wanted UNION ALL SELECT '%%' || stem FROM unnest(query_stems(part, true)) AS stem
        ) AS patterns
        JOIN mem_docs AS m ON {condition}
        JOIN LATERAL unnest(tsvector_to_array(m.search)) AS word ON word LIKE wanted
        GROUP BY part, word
    ) AS found
    WHERE place <= {parts}
    GROUP BY part
)

-- name: held
-- The documents that match a tsquery.
mem_docs AS m WHERE m.search @@ {query}

-- name: held_in_tenant
-- The same where tenancy is enforced, and the server does not use the index by itself: see schema/tenancy.sql.
(SELECT match_in_tenant({query}) AS id) AS matched JOIN mem_docs AS m ON m.id = matched.id WHERE TRUE

-- name: sample
-- About as many documents as are wanted, from whole pages, and the share that they are of all. Pages hold as many as the last
-- vacuum counted, or else one: a vector fills a page.
sample AS MATERIALIZED (
    SELECT m.search, share
    FROM (
        SELECT least(1, {sampled} / greatest(
            1, pages * CASE WHEN relpages > 0 AND reltuples > 0 THEN reltuples / relpages ELSE 1 END
        ))
        FROM pg_class, LATERAL (SELECT pg_relation_size(oid) / current_setting('block_size')::float8) AS size (pages)
        WHERE oid = 'mem_docs'::regclass
    ) AS wanted (share)
    CROSS JOIN LATERAL (
        SELECT search FROM mem_docs TABLESAMPLE SYSTEM (100 * share) REPEATABLE (0)
    ) AS m
)

-- name: sample_of_tenant
-- Index: mem_docs_tenant_id_content_hash_idx. Hashes are random numbers: the first ones are a random sample, and the last of
-- them tells the share that it is of all (the estimator of k minimum values, Bar-Yossef and others, RANDOM 2002).
sample AS MATERIALIZED (
    SELECT search, CASE count(*) OVER () WHEN {sampled} THEN max(part) OVER () ELSE 1 END AS share
    FROM (
        SELECT search, (get_byte(content_hash, 0) * 65536 + get_byte(content_hash, 1) * 256 + get_byte(content_hash, 2) + 1)
            / 16777216::float8 AS part
        FROM mem_docs WHERE tenant_id = %(tenant)s ORDER BY content_hash LIMIT {sampled}
    ) AS first
)

-- name: words
-- How much each word of the query weighs in BM25, and which are the rarest: `so_far` counts the documents of a word and of
-- those that are rarer.
size AS MATERIALIZED (
    SELECT docs, greatest(1, docs / share) AS total, average
    FROM (
        SELECT greatest(1, count(*))::float8, COALESCE(max(share), 1), greatest(1, COALESCE(avg(length(search)), 1))::float8
        FROM sample
    ) AS summed (docs, share, average)
),
counted AS MATERIALIZED (
    SELECT term, total, total * greatest((SELECT count(*) FROM sample WHERE search @@ term), 0.5) / docs AS held_by
    FROM terms CROSS JOIN size
    WHERE term IS NOT NULL
),
words AS MATERIALIZED (
    SELECT term, held_by, ln(1 + (total - held_by + 0.5) / (held_by + 0.5)) AS weight,
        row_number() OVER rarest_first AS place, sum(held_by) OVER rarest_first AS so_far
    FROM counted
    WINDOW rarest_first AS (ORDER BY held_by, term::text ROWS UNBOUNDED PRECEDING)
)

-- name: whole
-- Candidates hold one of the rarest words; if even the rarest is common, all of the words. If these are too few, others hold
-- the next words, as many as it takes by the estimates.
whole AS MATERIALIZED (
    SELECT {every} AS every, {kept} AS kept,
        string_agg(term::text, ' | ') FILTER (WHERE place = 1 OR so_far <= {few})::tsquery AS rare_words,
        string_agg(term::text, ' | ') FILTER (WHERE so_far - held_by < greatest({few}, %(depth)s))::tsquery AS more_words,
        min(held_by) > {most} AS common
    FROM words
),
queries AS MATERIALIZED (
    SELECT CASE WHEN common THEN COALESCE(every, rare_words) ELSE rare_words END && kept AS rare,
        more_words && kept AS more
    FROM whole
)

-- name: whole_phrase
whole AS MATERIALIZED (SELECT {every} AS every),
queries AS MATERIALIZED (SELECT every AS rare, NULL::tsquery AS more FROM whole)

-- name: candidates
-- Index: mem_docs_search_idx. Both are read only as far as the LIMITs below ask, but are planned as if they were read whole:
-- with LIMITs of their own the planner would hope to find enough matches early in a sequential scan.
rare AS MATERIALIZED (
    SELECT m.id, m.search FROM {rare_held} AND {condition}
),
others AS MATERIALIZED (
    SELECT m.id, m.search FROM {more_held}
        AND (SELECT count(*) FROM (SELECT FROM rare LIMIT %(depth)s) AS enough) < %(depth)s
        AND NOT m.search @@ (SELECT rare FROM queries) AND {condition}
)

-- name: ranked
-- BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009), as a share of what a document could reach.
-- Under ts_rank a word counts 1 for its first place, 1/4 for the second, 1/9...; other forms of words, of class C, count less.
-- Left out are documents that have nothing but words which nearly all documents have.
{found} AS MATERIALIZED (
    SELECT id, score
    FROM (SELECT %(k1)s::float8, %(b)s::float8) AS parameters (k1, b)
    CROSS JOIN (
        (SELECT * FROM rare LIMIT greatest({most}, %(depth)s))
        UNION ALL (SELECT * FROM others LIMIT greatest({more}, %(depth)s))
    ) AS c
    CROSS JOIN LATERAL (
        SELECT sum(weight * times * (k1 + 1) / (times + k1 * (1 - b + b * length(c.search) / average)))
        FROM words CROSS JOIN size
        CROSS JOIN LATERAL (SELECT 1.64493406685 * ts_rank('{{1, 0.1, 1, 1}}', c.search, term) OFFSET 0) AS counted (times)
        WHERE times > 0
    ) AS weighed (reached)
    CROSS JOIN LATERAL (
        SELECT {all_words} + COALESCE(reached / (SELECT (k1 + 1) * sum(weight) FROM words), 0)
    ) AS shared (score)
    WHERE score > 0.001
    ORDER BY score DESC, id
    LIMIT %(depth)s
)

-- name: latest
-- Index: mem_docs_updated_at_idx, for what no text index serves: the query has excluded words only.
found AS MATERIALIZED (
    SELECT id, score FROM ranked
    UNION ALL
    (
        SELECT id, 1 / (1 + row_number() OVER (ORDER BY updated_at DESC, id))::float8 AS score
        FROM (
            SELECT m.id, m.updated_at, m.search FROM mem_docs AS m
            WHERE querytree({excluding}) = 'T' AND {condition}
            ORDER BY m.updated_at DESC LIMIT {latest}
        ) AS latest
        WHERE search @@ {excluding}
        ORDER BY score DESC, id
        LIMIT %(depth)s
    )
)

-- name: highlight
-- The runs between blanks, in the beginning of a content, that hold a word of the query.
ARRAY(
    SELECT DISTINCT run FROM regexp_split_to_table(left(m.content, {chars}), '[[:space:]]+') AS run
    WHERE content_search(run) @@ (SELECT string_agg(term::text, ' | ')::tsquery FROM terms)
)

-- name: fused
-- Reciprocal rank fusion of `near` and `found`, in which the text counts the more, the better it matches.
fused AS MATERIALIZED (
    SELECT id, n.distance, n.place AS vector_rank, f.place AS text_rank,
        COALESCE(%(vector_weight)s::float8 / (%(rrf_k)s + n.place), 0)
            + COALESCE(%(text_weight)s::float8 * (1 + %(text_boost)s * f.score) / (%(rrf_k)s + f.place), 0) AS score
    FROM (
        SELECT id, distance, row_number() OVER (ORDER BY distance, id) AS place FROM near
        WHERE %(vector_weight)s > 0 AND {not_excluded}
    ) AS n
    FULL JOIN (
        SELECT id, score, row_number() OVER (ORDER BY score DESC, id) AS place FROM found WHERE %(text_weight)s > 0
    ) AS f USING (id)
    ORDER BY score DESC, id
    LIMIT %(k)s
)

-- name: not_excluded
EXISTS (SELECT FROM mem_docs AS m WHERE m.id = near.id AND m.search @@ {kept})

-- name: fused_similarity
-- A document outside of the vector's pool has no distance yet: it is NULL without a vector, and NaN for a zero vector.
1 - COALESCE(r.distance, (
    SELECT least(2, greatest(0, distance)) FROM asked, LATERAL (SELECT m.embedding <=> asked.v) AS d (distance)
    WHERE distance <= %(furthest)s AND {of_model}
))
