import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { SignJWT } from 'jose';
import { makeDataFolder, writePrivateFile } from './data-files.js';

export interface DevIdentity {
  publicKeyPem: string;
  issuer: string;
  audience: string;
  /** A signed token for that user. */
  token(sub: string, ttlSeconds: number): Promise<string>;
}

/**
 * A key pair for development, made once and kept private below `dataDir`, so that a token goes on being valid
 * over a restart (ES256).
 */
export const createDevIdentity = (deps: { dataDir: string; now?: () => number }): DevIdentity => {
  const file = path.join(makeDataFolder(deps.dataDir), 'dev-key.pem');
  if (!fs.existsSync(file)) {
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    writePrivateFile(file, pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
  }
  const privateKey = createPrivateKey(fs.readFileSync(file, 'utf8'));
  const publicKeyPem = createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString();
  const issuer = 'ide-orchestrator-development';
  const audience = 'ide-orchestrator';
  const now = deps.now ?? Date.now;

  return {
    publicKeyPem,
    issuer,
    audience,
    token: (sub, ttlSeconds) => {
      const seconds = Math.floor(now() / 1000);
      return new SignJWT({})
        .setProtectedHeader({ alg: 'ES256' })
        .setSubject(sub)
        .setIssuer(issuer)
        .setAudience(audience)
        .setIssuedAt(seconds)
        .setExpirationTime(seconds + ttlSeconds)
        .sign(privateKey);
    },
  };
};
