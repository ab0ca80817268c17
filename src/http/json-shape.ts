/** A smaller body cannot hold the loop up, whatever it is made of. */
const harmlessBytes = 64 * 1024;
/** The deepest body of the contract has three levels, the widest about 4,000 members. */
const deepest = 32;
const mostMembers = 10_000;

const quote = 0x22;
const backslash = 0x5c;

/**
 * What is wrong with the outline of a JSON text, or null. Parsing and judging 8 MiB of brackets or of tiny members takes
 * seconds in which no frame of anybody moves; counting them takes milliseconds (3 to 4 for each MiB).
 */
export function outlineFault(bytes: Uint8Array): string | null {
  if (bytes.length <= harmlessBytes) return null;
  let depth = 0;
  let members = 0;
  let inText = false;
  for (let index = 0; index < bytes.length; index++) {
    const byte = bytes[index];
    if (inText) {
      if (byte === backslash) index++;
      else if (byte === quote) inText = false;
      continue;
    }
    switch (byte) {
      case quote:
        inText = true;
        break;
      case 0x5b: // [
      case 0x7b: // {
        if (++depth > deepest) return `must be nested at most ${deepest} levels deep`;
        members++;
        break;
      case 0x5d: // ]
      case 0x7d: // }
        depth--;
        break;
      case 0x2c: // ,
        if (++members > mostMembers) return `must hold at most ${mostMembers} members`;
        break;
    }
  }
  return null;
}
