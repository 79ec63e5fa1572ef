// One live stream from the microphone to its result.

import { closeMicrophone, openMicrophone } from './microphone.js';
import { Stream } from './stream.js';

/** Hz; the service takes no more, and some sound cards give more. */
const HIGHEST_RATE = 48_000;

/** @typedef {import('./problem.js').Problem} Problem */
/** @typedef {'asking' | 'connecting' | 'running' | 'ending' | 'ended' | 'failed'} State */

/**
 * @typedef {object} On what to do about what happens; nothing is told after `abandon`
 * @property {(state: 'connecting' | 'running' | 'ending') => void} state
 * @property {(power: number) => void} heard with the power of each piece
 * @property {(event: import('./stream.js').Ready) => void} ready
 * @property {(event: import('./stream.js').WindowEvent, delay: number | null) => void} window with milliseconds since its last sample was sent
 * @property {(event: import('./stream.js').UtteranceEvent) => void} utterance
 * @property {(event: import('./stream.js').ResultEvent) => void} result
 */

/** Runs once. */
export class LiveSession {
  /** @param {On} on */
  constructor(on) {
    this.on = on;
    this.rate = HIGHEST_RATE;
    /** Samples that were sent. */
    this.sent = 0;
    /** When which samples were sent, for those that no window has answered yet. */
    /** @type {{seconds: number, at: number}[]} */
    this.times = [];
    this.over = false;
    this.abandoned = false;
    /** @type {(() => void)[]} what to let go of in the end */
    this.closing = [];
    /** @type {AudioWorkletNode | null} */
    this.gatherer = null;
    /** @type {Stream | null} */
    this.stream = null;
  }

  /** Seconds of audio that were sent. */
  get elapsed() {
    return this.sent / this.rate;
  }

  /**
   * @param {import('./stream.js').Start} wishes
   * @returns {Promise<Problem | null>} null where it ended with the result, or was abandoned
   * @throws {DOMException} where there is no microphone
   */
  async run(wishes) {
    try {
      const microphone = await openMicrophone();
      this.closing.push(() => closeMicrophone(microphone));
      if (this.abandoned) {
        return null;
      }
      this.on.state('connecting');
      const context = openContext();
      this.closing.push(() => context.close());
      await context.audioWorklet.addModule(new URL('microphone-worklet.js', import.meta.url));
      context.resume();
      this.rate = context.sampleRate;
      const gatherer = new AudioWorkletNode(context, 'gatherer', { channelCount: 1, channelCountMode: 'explicit' });
      gatherer.port.onmessage = ({ data }) => (data ? this.#take(data) : this.#end());
      this.closing.push(() => {
        gatherer.port.onmessage = null;
      });
      this.gatherer = gatherer;
      context.createMediaStreamSource(microphone).connect(gatherer);
      microphone.getAudioTracks()[0].addEventListener('ended', () => this.stop()); // such as where it is unplugged
      return this.abandoned ? null : await this.#connect(wishes);
    } finally {
      this.#release();
    }
  }

  /** All samples are here: the microphone may go, and the result is waited for. */
  #end() {
    this.#release();
    this.stream?.end();
  }

  #release() {
    for (const close of this.closing.splice(0)) {
      close();
    }
  }

  /** Send what there is, and wait for the result. */
  stop() {
    if (!this.over && this.gatherer) {
      this.over = true;
      this.gatherer.port.postMessage('end');
      this.on.state('ending');
    }
  }

  /** Give up. */
  abandon() {
    this.over = true;
    this.abandoned = true;
    this.stream?.abandon();
  }

  /**
   * @param {import('./stream.js').Start} wishes
   * @returns {Promise<Problem | null>}
   */
  #connect(wishes) {
    const unlessAbandoned = (/** @type {(event: any) => void} */ tell) => (/** @type {any} */ event) =>
      this.abandoned || tell(event);
    return new Promise((resolve) => {
      this.stream = new Stream(
        { sampling_rate: this.rate, encoding: 's16le', ...wishes },
        {
          ready: unlessAbandoned((event) => {
            this.on.ready(event);
            this.on.state('running');
          }),
          window: unlessAbandoned((event) => this.on.window(event, this.#delay(event.end))),
          utterance: unlessAbandoned(this.on.utterance),
          result: unlessAbandoned(this.on.result),
          closed: (problem) => resolve(this.abandoned ? null : problem),
        },
      );
    });
  }

  /** @param {{samples: Int16Array<ArrayBuffer>, power: number}} piece */
  #take({ samples, power }) {
    if (this.stream?.send(samples)) {
      this.sent += samples.length;
      this.times.push({ seconds: this.elapsed, at: performance.now() });
    }
    if (!this.abandoned) {
      this.on.heard(power);
    }
  }

  /**
   * @param {number} end seconds
   * @returns {number | null} milliseconds since the piece was sent in which a window ends
   */
  #delay(end) {
    const complete = this.times.findIndex(({ seconds }) => seconds >= end - 1e-6);
    if (complete < 0) {
      return null;
    }
    const delay = performance.now() - this.times[complete].at;
    this.times.splice(0, complete);
    return delay;
  }
}

/** An audio context of a rate that the service takes. */
function openContext() {
  const context = new AudioContext();
  if (context.sampleRate <= HIGHEST_RATE) {
    return context;
  }
  context.close();
  return new AudioContext({ sampleRate: HIGHEST_RATE });
}
