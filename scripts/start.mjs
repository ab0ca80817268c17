/**
 * `npm start`: makes the clone runnable, then is the server. One process, so that signals reach it.
 */
import process from 'node:process';
import { prepareOrExit } from './prepare.mjs';

await prepareOrExit();
process.setSourceMapsEnabled(true);
await import('../dist/src/main.js');
