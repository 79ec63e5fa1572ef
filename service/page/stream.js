// The service's WebSocket for live audio.

import { BASE, servedModel } from './api.js';
import { keyProtocols } from './key.js';
import { Problem } from './problem.js';

/** Bytes that may wait to be sent: five seconds of 48 kHz. More, and the connection is too slow. */
const MOST_WAITING = 480_000;

/** @typedef {{type: 'ready', id: string, model: import('./api.js').Model, window: number, hop: number}} Ready */
/** @typedef {import('./api.js').Segment & {type: 'window', skipped: number}} WindowEvent */
/** @typedef {import('./api.js').Segment & {type: 'utterance'}} UtteranceEvent */
/** @typedef {import('./api.js').Overall & {type: 'result', duration: number, speech_seconds: number}} ResultEvent */
/** @typedef {Record<string, string | number | boolean>} Start what is wanted, as the API has it */

/**
 * @typedef {object} On
 * @property {(event: Ready) => void} ready
 * @property {(event: WindowEvent) => void} window
 * @property {(event: UtteranceEvent) => void} utterance
 * @property {(event: ResultEvent) => void} result
 * @property {(problem: Problem | null) => void} closed once, null where it ended with the result
 */

/** One stream. */
export class Stream {
  /**
   * @param {Start} start
   * @param {On} on
   */
  constructor(start, on) {
    const url = new URL('stream', BASE);
    url.protocol = url.protocol.replace('http', 'ws');
    this.on = on;
    this.opened = false;
    this.ready = false;
    this.finished = false;
    this.over = false;
    /** @type {Problem | null} */
    this.problem = null;
    this.socket = new WebSocket(url, keyProtocols());
    this.socket.addEventListener('open', () => {
      this.opened = true;
      this.socket.send(JSON.stringify({ type: 'start', ...start }));
    });
    this.socket.addEventListener('message', ({ data }) => this.#take(JSON.parse(data)));
    this.socket.addEventListener('close', () => this.#close());
  }

  /**
   * Send samples; those that come before the service is ready are left out.
   *
   * @param {Int16Array<ArrayBuffer>} samples
   * @returns {boolean} whether they were sent
   */
  send(samples) {
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) {
      return false;
    }
    if (this.socket.bufferedAmount > MOST_WAITING) {
      this.#giveUp('connection_slow');
      return false;
    }
    this.socket.send(samples);
    return true;
  }

  /** Say that nothing more comes; the result follows. */
  end() {
    if (this.socket.readyState === WebSocket.OPEN && this.ready) {
      this.socket.send(JSON.stringify({ type: 'end' }));
    } else {
      this.#giveUp('stream_lost');
    }
  }

  /** Close without waiting for anything. */
  abandon() {
    this.#giveUp('cancelled');
  }

  /**
   * The stream is over at once, and not when the socket has closed: behind audio that waits on a slow connection, that
   * may take minutes, in which nobody should wonder why the microphone is on.
   *
   * @param {string} code
   */
  #giveUp(code) {
    this.problem ??= new Problem(code);
    this.socket.close();
    this.#close();
  }

  /** @param {Record<string, any>} event */
  #take(event) {
    if (this.over) {
      return;
    }
    if (event.type === 'problem') {
      this.problem = new Problem(event.code, event);
    } else if (event.type === 'ready') {
      this.ready = true;
      this.on.ready(/** @type {any} */ (event));
    } else if (event.type === 'window') {
      this.on.window(/** @type {any} */ (event));
    } else if (event.type === 'utterance') {
      this.on.utterance(/** @type {any} */ (event));
    } else if (event.type === 'result') {
      this.finished = true;
      this.on.result(/** @type {any} */ (event));
    }
  }

  async #close() {
    if (this.over) {
      return;
    }
    this.over = true;
    if (!this.finished) {
      this.problem ??= this.opened ? new Problem('stream_lost') : await whyRefused();
    }
    this.on.closed(this.problem);
  }
}

/** Why a stream was not opened. Browsers do not tell scripts what they were answered, so the service is asked again. */
async function whyRefused() {
  try {
    await servedModel();
    return new Problem('stream_refused');
  } catch (error) {
    return /** @type {Problem} */ (error);
  }
}
