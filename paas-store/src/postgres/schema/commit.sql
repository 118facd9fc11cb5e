CREATE FUNCTION paas.present(given bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(given, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint)
$$;

-- The class of work that is wanted twice: that of the earlier time; of what is due by now as both, the cheaper.
CREATE FUNCTION paas.merged_class(one text, one_at bigint, other text, other_at bigint, now bigint)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN one_at IS NULL THEN other
        WHEN greatest(one_at, other_at) <= now AND 'light' IN (one, other) THEN 'light'
        WHEN one_at <= other_at THEN one
        ELSE other
    END
$$;

CREATE FUNCTION paas.remove_record(_kind text, _id bytea) RETURNS void LANGUAGE sql AS $$
    DELETE FROM paas.unique_keys WHERE kind = _kind AND id = _id;
    DELETE FROM paas.index_keys WHERE kind = _kind AND id = _id;
    DELETE FROM paas.records WHERE kind = _kind AND id = _id;
$$;

-- Takes the batch back. `why` is one of `fenced`, `changed`, `missing` and `taken`.
CREATE FUNCTION paas.refuse(why text, detail text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'PAAS0', MESSAGE = why, DETAIL = detail;
END
$$;

-- Applies one batch, all of it or nothing.
--
-- Commits of all servers take turns under one lock, which is held until the transaction has become visible. So
-- positions become visible in their order, no two batches see each other half done, and none waits for another in a
-- circle. One transaction carries all batches that wait in a process: the turn costs one synced write, however many
-- they are.
--
-- An expected version is -1 for any and -2 for none. `unique_of` and `index_of` say to which write a key belongs.
CREATE FUNCTION paas.commit_batch(
    given bigint, _writer bigint, _place integer, _number bigint,
    fence_key bytea, fence_number bigint,
    operations text[], kinds text[], ids bytea[], scopes text[], expects bigint[], expiries bigint[], bodies bytea[],
    unique_of bigint[], unique_names text[], unique_values bytea[], unique_reaches text[],
    index_of bigint[], index_names text[], index_values bytea[],
    streams bytea[], owners text[], lengths bigint[], times bigint[], counts bigint[], events bytea[],
    changes text[], work_keys bytea[], work_scopes text[], work_fences bigint[], work_classes text[], work_dues bigint[],
    OUT _versions bigint[], OUT _positions bigint[], OUT refusal text, OUT detail text
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _now bigint;
    _write record;
    _key record;
    _append record;
    _change record;
    _found record;
    _exists boolean;
    _version bigint;
    _position bigint;
    _event bigint := 1;
BEGIN
    PERFORM pg_advisory_xact_lock(8097860751537995777);
    _now := paas.present(given);
    _versions := '{}';
    _positions := '{}';

    IF fence_key IS NOT NULL THEN
        -- Locked, so that nobody claims it before this is done.
        PERFORM 1 FROM paas.work w
            WHERE w.key = fence_key AND w.fence = fence_number AND w.expires_at > _now FOR UPDATE;
        IF NOT FOUND THEN PERFORM paas.refuse('fenced'); END IF;
    END IF;

    FOR _write IN
        SELECT * FROM unnest(operations, kinds, ids, scopes, expects, expiries, bodies)
            WITH ORDINALITY AS w (operation, kind, id, scope, expect, expires_at, body, place)
    LOOP
        SELECT r.version, r.scope, r.expires_at INTO _found
            FROM paas.records r WHERE r.kind = _write.kind AND r.id = _write.id;
        _exists := FOUND;
        IF _exists AND _found.expires_at <= _now THEN
            IF _write.operation = 'put' THEN PERFORM paas.remove_record(_write.kind, _write.id); END IF;
            _exists := false;
        END IF;
        -- What another one owns is as good as absent, but can't be replaced.
        IF _exists AND _found.scope <> _write.scope THEN
            IF _write.operation = 'put' THEN PERFORM paas.refuse('changed'); END IF;
            _exists := false;
        END IF;
        IF _write.operation = 'update' AND _write.expect = -2 THEN PERFORM paas.refuse('changed'); END IF;
        IF _write.operation = 'update' AND _write.expect = -1 AND NOT _exists THEN PERFORM paas.refuse('missing'); END IF;
        IF NOT (CASE _write.expect
            WHEN -1 THEN true
            WHEN -2 THEN NOT _exists
            ELSE _exists AND _found.version = _write.expect
        END) THEN
            PERFORM paas.refuse('changed');
        END IF;
        _version := CASE WHEN _exists THEN _found.version + 1 ELSE 1 END;

        IF _write.operation = 'update' THEN
            UPDATE paas.records SET version = _version, body = _write.body
                WHERE kind = _write.kind AND id = _write.id;
        ELSIF _write.operation = 'remove' THEN
            IF _exists THEN PERFORM paas.remove_record(_write.kind, _write.id); END IF;
            _version := 0;
        ELSE
            IF _exists THEN
                UPDATE paas.records SET version = _version, expires_at = _write.expires_at, body = _write.body
                    WHERE kind = _write.kind AND id = _write.id;
                DELETE FROM paas.unique_keys WHERE kind = _write.kind AND id = _write.id;
                DELETE FROM paas.index_keys WHERE kind = _write.kind AND id = _write.id;
            ELSE
                INSERT INTO paas.records (kind, id, scope, version, expires_at, body)
                    VALUES (_write.kind, _write.id, _write.scope, 1, _write.expires_at, _write.body);
            END IF;
            FOR _key IN
                SELECT * FROM unnest(unique_of, unique_names, unique_values, unique_reaches)
                    WITH ORDINALITY AS k (write, name, value, reach, place)
                    WHERE k.write = _write.place
            LOOP
                INSERT INTO paas.unique_keys (kind, name, value, reach, id)
                    VALUES (_write.kind, _key.name, _key.value, _key.reach, _write.id) ON CONFLICT DO NOTHING;
                CONTINUE WHEN FOUND;
                SELECT u.id, r.expires_at INTO _found
                    FROM paas.unique_keys u JOIN paas.records r ON r.kind = u.kind AND r.id = u.id
                    WHERE u.kind = _write.kind AND u.name = _key.name AND u.value = _key.value
                        AND u.reach = _key.reach;
                CONTINUE WHEN _found.id = _write.id;
                -- A holder that expired lets go of it.
                IF _found.expires_at IS NULL OR _found.expires_at > _now THEN
                    PERFORM paas.refuse('taken', _key.place::text);
                END IF;
                PERFORM paas.remove_record(_write.kind, _found.id);
                INSERT INTO paas.unique_keys (kind, name, value, reach, id)
                    VALUES (_write.kind, _key.name, _key.value, _key.reach, _write.id);
            END LOOP;
            INSERT INTO paas.index_keys (kind, name, value, id, scope)
                SELECT _write.kind, k.name, k.value, _write.id, _write.scope
                FROM unnest(index_of, index_names, index_values) AS k (write, name, value)
                WHERE k.write = _write.place ON CONFLICT DO NOTHING;
        END IF;
        _versions := _versions || _version;
    END LOOP;

    FOR _append IN
        SELECT * FROM unnest(streams, owners, lengths, times, counts) AS a (stream, scope, length, at, count)
    LOOP
        SELECT e.version, e.scope INTO _found
            FROM paas.events e WHERE e.stream = _append.stream ORDER BY e.version DESC LIMIT 1;
        IF coalesce(_found.version, 0) <> _append.length OR _found.scope <> _append.scope THEN
            PERFORM paas.refuse('changed');
        END IF;
        _version := _append.length;
        IF _append.count = 0 THEN
            _positions := _positions || 0::bigint;
        END IF;
        FOR _offset IN 1 .. _append.count LOOP
            _position := nextval('paas.positions');
            INSERT INTO paas.events (position, stream, version, scope, at, body) VALUES
                (_position, _append.stream, _version + _offset, _append.scope, _append.at, events[_event]);
            _event := _event + 1;
            IF _offset = 1 THEN _positions := _positions || _position; END IF;
        END LOOP;
    END LOOP;

    FOR _change IN
        SELECT * FROM unnest(changes, work_keys, work_scopes, work_fences, work_classes, work_dues)
            AS c (change, key, scope, fence, class, due)
    LOOP
        IF _change.change = 'schedule' THEN
            PERFORM paas.schedule_work(_change.key, _change.scope, _change.class, _change.due, _now);
        ELSE
            PERFORM paas.release_work(_change.key, _change.fence, _change.class, _change.due, _now);
        END IF;
    END LOOP;

    INSERT INTO paas.commits AS c (writer, place, number, versions, positions)
        VALUES (_writer, _place, _number, _versions, _positions)
        ON CONFLICT (writer, place) DO UPDATE
        SET number = excluded.number, versions = excluded.versions, positions = excluded.positions, at = excluded.at
        WHERE c.number < excluded.number;
    -- Whoever asked for this was cut off, and was told that it did not happen.
    IF NOT FOUND THEN RAISE EXCEPTION USING ERRCODE = 'PAAS1', MESSAGE = 'given up'; END IF;
EXCEPTION WHEN SQLSTATE 'PAAS0' THEN
    GET STACKED DIAGNOSTICS refusal = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    _versions := NULL;
    _positions := NULL;
END
$$;

-- What became of a batch whose answer was lost: the versions and positions it was given, or nothing if it did not
-- happen. After that it never will: if it is under way, this waits for its end; if it comes later, it is refused.
CREATE FUNCTION paas.recall_batch(
    _writer bigint, _place integer, _number bigint, OUT happened boolean, OUT _versions bigint[], OUT _positions bigint[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO paas.commits AS c (writer, place, number) VALUES (_writer, _place, _number)
        ON CONFLICT (writer, place) DO UPDATE SET number = excluded.number, versions = NULL, positions = NULL
        WHERE c.number < excluded.number;
    SELECT c.versions IS NOT NULL, c.versions, c.positions INTO happened, _versions, _positions
        FROM paas.commits c WHERE c.writer = _writer AND c.place = _place;
END
$$;

-- Removes expired records, at most `most`, and what connections left behind that ended a day ago.
CREATE FUNCTION paas.sweep(given bigint, most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _now bigint := paas.present(given);
    _record record;
    _swept bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(8097860751537995777);
    DELETE FROM paas.commits WHERE at < now() - interval '1 day';
    FOR _record IN
        SELECT kind, id FROM paas.records WHERE expires_at <= _now ORDER BY expires_at LIMIT most
    LOOP
        PERFORM paas.remove_record(_record.kind, _record.id);
        _swept := _swept + 1;
    END LOOP;
    RETURN _swept;
END
$$;
