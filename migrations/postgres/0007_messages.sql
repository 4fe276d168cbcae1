-- Messages to webhooks on their way out. How far they are in is in sink_progress, class 'messages': all of the journal epochs
-- below `upper` are.

-- A message that was sent stays for a while without its body, so that it is not sent once more when it comes again.
CREATE TABLE {schema}.messages (
    message_id  text COLLATE "C" PRIMARY KEY,
    epoch       bigint NOT NULL,  -- journal epoch that it is about
    business_id text NOT NULL,
    url         text NOT NULL,
    body        text NOT NULL,    -- JSON; empty once it is sent
    created_at  timestamptz NOT NULL,
    attempts    integer NOT NULL, -- that have failed
    next_at     timestamptz,      -- when it is tried next; none: it is sent or dead
    state       text NOT NULL,    -- 'waiting' | 'sent' | 'dead'
    last_error  text              -- why the last attempt failed
);
CREATE INDEX messages_waiting ON {schema}.messages (next_at, message_id) WHERE state = 'waiting';
CREATE INDEX messages_dead ON {schema}.messages (message_id) WHERE state = 'dead';
CREATE INDEX messages_sent ON {schema}.messages (created_at) WHERE state = 'sent';
