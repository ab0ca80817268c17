-- A transcript is kept in parts, so that neither writing nor reading it needs it whole.
ALTER TABLE transcripts
  DROP CONSTRAINT transcripts_pkey,
  ALTER COLUMN first_seq TYPE bigint,
  ALTER COLUMN last_seq TYPE bigint,
  -- Of the frames, before compression.
  ADD COLUMN bytes integer NOT NULL,
  ADD PRIMARY KEY (proposal_id, attempt, epoch, first_seq);

-- Set while the transcript of an ended run is incomplete: whoever finds it passed may take the work over.
ALTER TABLE proposals
  ADD COLUMN transcript_due_at timestamptz(3),
  ADD COLUMN transcript_tries integer NOT NULL DEFAULT 0,
  ADD CHECK (transcript_due_at IS NULL OR status <> 'processing');
CREATE INDEX proposals_transcript_due ON proposals (transcript_due_at) WHERE transcript_due_at IS NOT NULL;
