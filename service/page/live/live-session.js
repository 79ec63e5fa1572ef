// Sends the microphone to one live stream, until its result.

import { closeMicrophone, openMicrophone } from '../input/microphone.js';
import { LiveStream } from './live-stream.js';

/** The highest sampling rate, in Hz, that the service accepts; some sound cards have higher ones. */
const MAX_RATE = 48_000;

/** @typedef {import('../api/problem.js').Problem} Problem */
/** @typedef {'asking' | 'connecting' | 'running' | 'ending' | 'ended' | 'failed'} SessionState */

/**
 * @typedef {object} Handlers none is called after `cancel`
 * @property {(state: 'connecting' | 'running' | 'ending') => void} state
 * @property {(power: number) => void} level called with the power of each chunk
 * @property {(event: import('./live-stream.js').ReadyEvent) => void} ready
 * @property {(event: import('./live-stream.js').WindowEvent, delay: number | null) => void} window called with the milliseconds since its last sample was sent
 * @property {(event: import('./live-stream.js').UtteranceEvent) => void} utterance
 * @property {(event: import('./live-stream.js').ResultEvent) => void} result
 */

/** A session runs once. */
export class LiveSession {
  /** @param {Handlers} on */
  constructor(on) {
    this.on = on;
    this.rate = MAX_RATE;
    /** Number of samples sent. */
    this.sent = 0;
    /** @type {{seconds: number, at: number}[]} when each chunk was sent, by its end in seconds; oldest first */
    this.sendTimes = [];
    this.stopped = false;
    this.cancelled = false;
    /** @type {(() => void)[]} releases what is in use */
    this.cleanups = [];
    /** @type {AudioWorkletNode | null} */
    this.collector = null;
    /** @type {LiveStream | null} */
    this.stream = null;
  }

  /** Seconds of audio that were sent. */
  get elapsed() {
    return this.sent / this.rate;
  }

  /**
   * @param {import('./live-stream.js').StreamOptions} startOptions
   * @returns {Promise<Problem | null>} null if it ended with the result or was cancelled
   * @throws {DOMException} if the microphone is not available
   */
  async run(startOptions) {
    try {
      const microphone = await openMicrophone();
      this.cleanups.push(() => closeMicrophone(microphone));
      if (this.cancelled) {
        return null;
      }
      this.on.state('connecting');
      const context = openContext();
      this.cleanups.push(() => context.close());
      await context.audioWorklet.addModule(new URL('microphone-worklet.js', import.meta.url));
      context.resume();
      this.rate = context.sampleRate;
      const collector = new AudioWorkletNode(context, 'sample-collector', {
        channelCount: 1,
        channelCountMode: 'explicit',
      });
      collector.port.onmessage = ({ data }) => (data ? this.#send(data) : this.#end());
      this.cleanups.push(() => {
        collector.port.onmessage = null;
      });
      this.collector = collector;
      context.createMediaStreamSource(microphone).connect(collector);
      microphone.getAudioTracks()[0].addEventListener('ended', () => this.stop()); // for example when it is unplugged
      return this.cancelled ? null : await this.#connect(startOptions);
    } finally {
      this.#release();
    }
  }

  /** All samples were sent: close the microphone, and wait for the result. */
  #end() {
    this.#release();
    this.stream?.end();
  }

  #release() {
    for (const close of this.cleanups.splice(0)) {
      close();
    }
  }

  /** Send the remaining samples, and wait for the result. */
  stop() {
    if (!this.stopped && this.collector) {
      this.stopped = true;
      this.collector.port.postMessage('end');
      this.on.state('ending');
    }
  }

  /** Close the stream without waiting for the result. */
  cancel() {
    this.stopped = true;
    this.cancelled = true;
    this.stream?.cancel();
  }

  /**
   * @param {import('./live-stream.js').StreamOptions} startOptions
   * @returns {Promise<Problem | null>}
   */
  #connect(startOptions) {
    const unlessCancelled = (/** @type {(event: any) => void} */ handler) => (/** @type {any} */ event) =>
      this.cancelled || handler(event);
    return new Promise((resolve) => {
      this.stream = new LiveStream(
        { sampling_rate: this.rate, encoding: 's16le', ...startOptions },
        {
          ready: unlessCancelled((event) => {
            this.on.ready(event);
            this.on.state('running');
          }),
          window: unlessCancelled((event) => this.on.window(event, this.#delay(event.end))),
          utterance: unlessCancelled(this.on.utterance),
          result: unlessCancelled(this.on.result),
          closed: (problem) => resolve(this.cancelled ? null : problem),
        },
      );
    });
  }

  /** @param {{samples: Int16Array<ArrayBuffer>, power: number}} chunk */
  #send({ samples, power }) {
    if (this.stream?.send(samples)) {
      this.sent += samples.length;
      this.sendTimes.push({ seconds: this.elapsed, at: performance.now() });
    }
    if (!this.cancelled) {
      this.on.level(power);
    }
  }

  /**
   * @param {number} end of the window in seconds
   * @returns {number | null} milliseconds since the chunk with the end of a window was sent
   */
  #delay(end) {
    const index = this.sendTimes.findIndex(({ seconds }) => seconds >= end - 1e-6);
    if (index < 0) {
      return null;
    }
    const delay = performance.now() - this.sendTimes[index].at;
    this.sendTimes.splice(0, index);
    return delay;
  }
}

/** An audio context with a sampling rate that the service accepts. */
function openContext() {
  const context = new AudioContext();
  if (context.sampleRate <= MAX_RATE) {
    return context;
  }
  context.close();
  return new AudioContext({ sampleRate: MAX_RATE });
}
