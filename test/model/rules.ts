/** Rules of the design that the model can leave out, to show that it would see the harm. */
export interface Rules {
  /** 1: a commit names the version that it follows. */
  version: boolean;
  /** 1, 2: a commit names its owner's generation, and whoever finds another one becomes a reader. */
  generation: boolean;
  /** 2: a commit without an answer, or that touched no row, is looked up. */
  lookUp: boolean;
  /** 2: what was decided under one generation is not committed under another one of the same replica. */
  decidedAnew: boolean;
  /** 2: a replica looks for rows that name it and have no owner's actor here. */
  revival: boolean;
  /** 7: an attempt is invoked only when those before it are cleaned up, or called ended. */
  cleanUpFirst: boolean;
  /** 10: a reader judges nothing. */
  readerJudgesNothing: boolean;
  /** 10: a viewer of another epoch is told to begin anew. */
  resetOnForeignEpoch: boolean;
  /** 11: below the notices each replica reads its rows again. */
  reread: boolean;
  /** 12: whoever stands still is replaced. */
  takeOver: boolean;
  /** 21: a clean-up bars its job for ever, known or not. */
  tombstone: boolean;
}

export const allRules: Rules = {
  version: true,
  generation: true,
  lookUp: true,
  decidedAnew: true,
  revival: true,
  cleanUpFirst: true,
  readerJudgesNothing: true,
  resetOnForeignEpoch: true,
  reread: true,
  takeOver: true,
  tombstone: true,
};
