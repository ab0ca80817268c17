/** Lets `perSecond` calls a second through, and as many at once; false = one too many. */
export function createAllowance(options: { perSecond: number; now: () => number }): () => boolean {
  let left = options.perSecond;
  let at = options.now();
  return () => {
    const now = options.now();
    left = Math.min(options.perSecond, left + (Math.max(0, now - at) / 1000) * options.perSecond);
    at = now;
    if (left < 1) return false;
    left -= 1;
    return true;
  };
}
