/** What the databases say of one proposal at the end of a campaign. */
export interface ProposalFacts {
  id: string;
  workflowId: string;
  threadId: string;
  status: string;
  phase: string | null;
  resolution: string | null;
  attempt: number;
  errorCode: string | null;
  version: number;
  ownerGeneration: number;
  /** How often somebody took over the completion of the transcript, which raises the generation too. */
  transcriptTries: number;
  cancelRequested: boolean;
  /** path → text; null = deleted. */
  files: Readonly<Record<string, string | null>> | null;
  transitions: readonly Transition[];
  attempts: readonly Attempt[];
}

/** A record of the audit. */
export interface Transition {
  rowVersion: number;
  from: string | null;
  to: string;
  event: string;
  attempt: number;
  /** Milliseconds since 1970. */
  at: number;
  /** When its commit was made. */
  committedAt: number | null;
  fromNode: string | null;
}

export interface Attempt {
  attempt: number;
  jobId: string;
  outcome: string | null;
}

/** A row of the runtime's. */
export interface RunFacts {
  jobId: string;
  status: string;
  createdAt: number;
  startedAt: number | null;
  /** When it could write no more: finished, or its deletion was noted. */
  overAt: number | null;
}

export interface DraftFacts {
  revision: number;
  files: Readonly<Record<string, string>>;
}
