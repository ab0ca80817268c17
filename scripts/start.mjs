/**
 * `npm start`: makes the clone runnable, then is the server. One process, so that signals reach it; for the same
 * reason the scripts in package.json say `exec`: npm passes a signal to the shell between, which would just die.
 */
import process from 'node:process';
import { prepareOrExit } from './prepare.mjs';

await prepareOrExit();
process.setSourceMapsEnabled(true);
await import('../dist/src/main.js');
