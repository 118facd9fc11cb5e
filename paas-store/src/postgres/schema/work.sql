CREATE FUNCTION paas.schedule_work(_key bytea, _scope text, _class text, _due bigint, _now bigint)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _is_held boolean;
BEGIN
    -- Locked before it is looked at: a claim that is under way is waited for, and not undone.
    SELECT coalesce(w.expires_at > _now, false) INTO _is_held FROM paas.work w WHERE w.key = _key FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO paas.work (key, scope, class, due_at) VALUES (_key, _scope, _class, _due);
    ELSIF _is_held THEN
        UPDATE paas.work w SET
            again_class = paas.merged_class(w.again_class, w.again_at, _class, _due, _now),
            again_at = least(w.again_at, _due)
            WHERE w.key = _key;
    ELSE
        -- A lease that ended unnoticed ends here.
        UPDATE paas.work w SET
            class = paas.merged_class(w.class, w.due_at, _class, _due, _now),
            due_at = least(w.due_at, _due),
            fence = NULL, expires_at = NULL, worker = NULL
            WHERE w.key = _key;
    END IF;
END
$$;

CREATE FUNCTION paas.release_work(_key bytea, _fence bigint, _class text, _due bigint, _now bigint)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _again record;
BEGIN
    SELECT w.again_class AS class, w.again_at AS at INTO _again FROM paas.work w
        WHERE w.key = _key AND w.fence = _fence AND w.expires_at > _now FOR UPDATE;
    IF NOT FOUND THEN PERFORM paas.refuse('fenced'); END IF;
    IF _due IS NULL AND _again.at IS NULL THEN
        DELETE FROM paas.work WHERE key = _key;
    ELSE
        UPDATE paas.work SET
            class = CASE WHEN _due IS NULL THEN _again.class
                ELSE paas.merged_class(_again.class, _again.at, _class, _due, _now) END,
            due_at = least(_again.at, _due),
            again_class = NULL, again_at = NULL, fence = NULL, expires_at = NULL, worker = NULL
            WHERE key = _key;
    END IF;
END
$$;

-- Keeps every wait as long as it was meant to be, and due what is due, when the clock was set back by more than a
-- second.
CREATE FUNCTION paas.keep_waits(_now bigint) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _second CONSTANT bigint := 1000000000;
    _seen bigint;
BEGIN
    SELECT c.seen INTO _seen FROM paas.clock c;
    IF _now < _seen - _second THEN
        UPDATE paas.work SET
            due_at = due_at - (_seen - _now),
            again_at = again_at - (_seen - _now),
            expires_at = expires_at - (_seen - _now);
        UPDATE paas.clock SET seen = _now;
    ELSIF _now > _seen + _second THEN
        UPDATE paas.clock SET seen = _now;
    END IF;
END
$$;

-- Takes leases: of each class at most its limit, within its slots (none: no bound). The last row has no key, but how
-- long it is until the next work becomes due.
--
-- Among the orgs that have due work the one that holds the fewest leases of the class comes first, then the one whose
-- last turn is longest ago; within one, what has been due longest. Claims take turns under a lock of their own, since
-- slots are counted over all servers; they pass over what a commit has locked, and never wait for one.
CREATE FUNCTION paas.claim_work(
    given bigint, _worker text, classes text[], limits bigint[], slots bigint[], duration bigint
) RETURNS TABLE (key bytea, scope text, class text, fence bigint, expires_at bigint, next_due bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _now bigint;
    _class text;
    _wanted bigint;
    _candidate record;
    _lease record;
BEGIN
    PERFORM pg_advisory_xact_lock(8097860751537995778);
    _now := paas.present(given);
    PERFORM paas.keep_waits(_now);
    FOR _place IN 1 .. cardinality(classes) LOOP
        _class := classes[_place];
        _wanted := least(limits[_place], slots[_place] -
            (SELECT count(*) FROM paas.work w WHERE w.class = _class AND w.expires_at > _now));
        CONTINUE WHEN _wanted <= 0;
        FOR _candidate IN
            -- The orgs with work, each found behind the one before in the index.
            WITH RECURSIVE orgs (scope) AS (
                SELECT min(w.scope) FROM paas.work w WHERE w.class = _class
                UNION ALL
                SELECT (SELECT min(w.scope) FROM paas.work w WHERE w.class = _class AND w.scope > orgs.scope)
                FROM orgs WHERE orgs.scope IS NOT NULL
            ), held AS (
                SELECT w.scope, count(*) AS leases FROM paas.work w
                WHERE w.class = _class AND w.expires_at > _now GROUP BY w.scope
            ), due AS (
                SELECT orgs.scope, line.key, coalesce(held.leases, 0) AS leases, coalesce(turns.fence, 0) AS turn,
                    row_number() OVER (PARTITION BY orgs.scope ORDER BY line.due_at, line.key) - 1 AS rank
                FROM orgs
                CROSS JOIN LATERAL (
                    SELECT w.key, w.due_at FROM paas.work w
                    WHERE w.class = _class AND w.scope = orgs.scope AND w.due_at <= _now
                        AND (w.expires_at IS NULL OR w.expires_at <= _now)
                    ORDER BY w.due_at, w.key LIMIT _wanted
                ) AS line
                LEFT JOIN held ON held.scope = orgs.scope
                LEFT JOIN paas.turns ON turns.class = _class AND turns.scope = orgs.scope
            )
            SELECT due.key FROM due
            ORDER BY due.leases + due.rank, due.rank, due.turn, due.scope LIMIT _wanted
        LOOP
            UPDATE paas.work w
                SET fence = nextval('paas.fences'), expires_at = _now + duration, worker = _worker
                WHERE w.key = (
                    SELECT free.key FROM paas.work free
                    WHERE free.key = _candidate.key AND free.class = _class AND free.due_at <= _now
                        AND (free.expires_at IS NULL OR free.expires_at <= _now)
                    FOR UPDATE SKIP LOCKED
                )
                RETURNING w.key, w.scope, w.class, w.fence, w.expires_at INTO _lease;
            CONTINUE WHEN NOT FOUND;
            INSERT INTO paas.turns (class, scope, fence) VALUES (_class, _lease.scope, _lease.fence)
                ON CONFLICT (class, scope) DO UPDATE SET fence = excluded.fence;
            RETURN QUERY SELECT _lease.key, _lease.scope, _lease.class, _lease.fence, _lease.expires_at, NULL::bigint;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT NULL::bytea, NULL::text, NULL::text, NULL::bigint, NULL::bigint, least(
        (SELECT min(w.due_at) FROM paas.work w WHERE w.expires_at IS NULL AND w.due_at > _now),
        (SELECT min(w.expires_at) FROM paas.work w WHERE w.expires_at > _now)
    ) - _now;
END
$$;

-- How much work of a class is held or due; with a key, how much of it comes before that one.
CREATE FUNCTION paas.count_work(given bigint, _class text, _key bytea) RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _now bigint := paas.present(given);
    _own record;
    _count bigint;
BEGIN
    IF _key IS NULL THEN
        SELECT count(*) INTO _count FROM paas.work w
            WHERE w.class = _class AND (w.due_at <= _now OR w.expires_at > _now);
        RETURN _count;
    END IF;
    SELECT w.scope, w.due_at INTO _own FROM paas.work w
        WHERE w.key = _key AND w.class = _class AND w.due_at <= _now
            AND (w.expires_at IS NULL OR w.expires_at <= _now);
    IF NOT FOUND THEN RETURN 0; END IF;
    WITH line AS (
        SELECT w.scope, coalesce((
                SELECT t.fence FROM paas.turns t WHERE t.class = _class AND t.scope = w.scope
            ), 0) AS turn,
            count(*) FILTER (WHERE w.expires_at > _now) AS held,
            count(*) FILTER (WHERE w.expires_at IS NULL OR w.expires_at <= _now) AS due,
            count(*) FILTER (WHERE (w.expires_at IS NULL OR w.expires_at <= _now)
                AND (w.due_at, w.key) < (_own.due_at, _key)) AS rank
        FROM paas.work w WHERE w.class = _class AND (w.due_at <= _now OR w.expires_at > _now)
        GROUP BY w.scope
    )
    -- In the round in which this org has as many leases as it needs to reach the key, who else came before?
    SELECT own.rank + sum(line.held) + coalesce(sum(least(line.due, greatest(0,
            own.held + own.rank - line.held + ((line.turn, line.scope) < (own.turn, own.scope))::integer
        ))) FILTER (WHERE line.scope <> own.scope), 0)
        INTO _count
        FROM line CROSS JOIN line own WHERE own.scope = _own.scope
        GROUP BY own.rank;
    RETURN _count;
END
$$;
