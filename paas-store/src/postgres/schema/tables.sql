-- Everything is in a schema of its own, so that the database may hold other things too.
--
-- Times are nanoseconds since 1970. What comes from outside (ids, key values, streams) is kept as bytes: PostgreSQL's
-- text holds no NUL, and orders by a locale. A unique key's reach is the owner within which it is unique, or empty.
-- Settings that are called `given` are a test's time; without one it is the database's clock, which all servers share.

CREATE TABLE paas.records (
    kind text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    scope text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    expires_at bigint,
    body bytea NOT NULL,
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 80);
CREATE INDEX records_by_expiry ON paas.records (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE paas.unique_keys (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    reach text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    PRIMARY KEY (kind, name, value, reach)
);
CREATE INDEX unique_keys_by_record ON paas.unique_keys (kind, id);

CREATE TABLE paas.index_keys (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    id bytea NOT NULL,
    scope text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, name, value, id)
);
CREATE INDEX index_keys_by_scope ON paas.index_keys (kind, name, scope, value, id);
CREATE INDEX index_keys_by_record ON paas.index_keys (kind, id);

CREATE TABLE paas.events (
    position bigint PRIMARY KEY,
    stream bytea NOT NULL,
    version bigint NOT NULL,
    scope text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    body bytea NOT NULL,
    UNIQUE (stream, version)
);
CREATE INDEX events_by_scope ON paas.events (scope, position);
CREATE SEQUENCE paas.positions;

-- Due work, and who holds it: `fence` and `expires_at` of the last claim, until it is released.
CREATE TABLE paas.work (
    key bytea PRIMARY KEY,
    scope text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    due_at bigint NOT NULL,
    again_class text COLLATE "C",
    again_at bigint,
    fence bigint,
    expires_at bigint,
    worker text
) WITH (fillfactor = 80);
CREATE INDEX work_by_line ON paas.work (class, scope, due_at, key);
CREATE INDEX work_free ON paas.work (due_at) WHERE expires_at IS NULL;
CREATE INDEX work_held ON paas.work (expires_at) WHERE expires_at IS NOT NULL;
CREATE SEQUENCE paas.fences;

-- The last fence that an org was given in a class: whose is lowest has waited longest for a turn.
CREATE TABLE paas.turns (
    class text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    fence bigint NOT NULL,
    PRIMARY KEY (class, scope)
);

-- The latest time that was seen, to notice a clock that is set back.
CREATE TABLE paas.clock (seen bigint NOT NULL);
INSERT INTO paas.clock VALUES (0);

-- What each connection that writes committed last, in each place of a group: what it asks after it was cut off.
CREATE TABLE paas.commits (
    writer bigint NOT NULL,
    place integer NOT NULL,
    number bigint NOT NULL,
    versions bigint[],
    positions bigint[],
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (writer, place)
) WITH (fillfactor = 50);
CREATE SEQUENCE paas.writers;

CREATE TABLE paas.pings (count bigint NOT NULL);
INSERT INTO paas.pings VALUES (0);
