-- Messages to webhooks on their way out. How far they are in is in sink_progress, class 'messages': all of the journal epochs
-- below `upper` are.

-- A message that was sent stays for a while without its body, so that it is not sent once more when it comes again.
CREATE TABLE messages (
    message_id  TEXT PRIMARY KEY,
    epoch       INTEGER NOT NULL, -- journal epoch that it is about
    business_id TEXT NOT NULL,
    url         TEXT NOT NULL,
    body        TEXT NOT NULL,    -- JSON; empty once it is sent
    created_at  TEXT NOT NULL,
    attempts    INTEGER NOT NULL, -- that have failed
    next_at     TEXT,             -- when it is tried next; none: it is sent or dead
    state       TEXT NOT NULL,    -- 'waiting' | 'sent' | 'dead'
    last_error  TEXT              -- why the last attempt failed
) STRICT;
CREATE INDEX messages_waiting ON messages (next_at, message_id) WHERE state = 'waiting';
CREATE INDEX messages_dead ON messages (message_id) WHERE state = 'dead';
CREATE INDEX messages_sent ON messages (created_at) WHERE state = 'sent';
