// Files on their way through the service: two at a time, and again later where the service is busy.

import { inSegments, newRequestId, recognize, requestState } from './api.js';
import { askForKey } from './key.js';
import { mediaDuration } from './player.js';
import { Problem } from './problem.js';

const AT_ONCE = 2;
const MOST_TRIES = 8;
/** A quick answer comes before the first question where it is. */
const FIRST_QUESTION = 250;
const NEXT_QUESTION = 500;

/** @typedef {'pending' | 'uploading' | 'received' | 'decoding' | 'queued' | 'running' | 'busy' | 'done' | 'failed' | 'cancelled'} State */

/** One file and what has become of it. Fires `change`. */
export class Job extends EventTarget {
  /**
   * @param {string} name
   * @param {Blob} blob
   */
  constructor(name, blob) {
    super();
    this.name = name;
    this.blob = blob;
    /** @type {State} */
    this.state = 'pending';
    /** Share of the upload that has gone out. */
    this.uploaded = 0;
    /** @type {import('./api.js').RequestState['ahead']} while queued */
    this.ahead = undefined;
    /** Seconds until the next try, while busy. */
    this.retryIn = 0;
    /** @type {import('./api.js').Answered | null} */
    this.answered = null;
    /** @type {import('./api.js').Segment[]} those that have come while there is no answer */
    this.segments = [];
    /** @type {number | null} seconds, where this browser knows it before the service has said it */
    this.duration = null;
    /** @type {import('./api.js').Options} as they were sent */
    this.options = [];
    /** Whether the answer was computed earlier, and came with the page. */
    this.stored = false;
    /** Milliseconds from sending to the answer. */
    this.wall = 0;
    /** @type {Problem | null} */
    this.problem = null;
    /** Whether an answer from a cache will not do. */
    this.anew = false;
    this.cancelling = new AbortController();
  }

  /** Whether something is still to come. */
  get active() {
    return !['done', 'failed', 'cancelled'].includes(this.state);
  }

  /** Give up; where the request is on its way, the service learns it. */
  cancel() {
    if (this.active) {
      this.cancelling.abort();
      this.become('cancelled');
    }
  }

  /**
   * @param {State} state
   */
  become(state) {
    this.state = state;
    this.dispatchEvent(new Event('change'));
  }

  /**
   * Take an answer that was computed before.
   *
   * @param {import('./api.js').Answer} answer
   * @param {import('./api.js').Options} options
   */
  takeStored(answer, options) {
    this.answered = { answer, text: JSON.stringify(answer), timings: null, cached: false };
    this.options = options;
    this.stored = true;
    this.become('done');
  }
}

/** Works off jobs in their order. */
export class Runner {
  /** @param {() => import('./api.js').Options} options what is asked for, read when a job begins */
  constructor(options) {
    this.options = options;
    /** @type {Job[]} */
    this.waiting = [];
    this.running = 0;
  }

  /**
   * @param {Job} job
   */
  add(job) {
    const fresh = { answered: null, segments: [], stored: false, problem: null };
    Object.assign(job, { cancelling: new AbortController(), ...fresh });
    job.become('pending');
    this.waiting.push(job);
    this.#next();
  }

  #next() {
    while (this.running < AT_ONCE) {
      const job = this.waiting.shift();
      if (!job) {
        return;
      }
      if (!job.active) {
        continue;
      }
      this.running++;
      this.#run(job).finally(() => {
        this.running--;
        this.#next();
      });
    }
  }

  /** @param {Job} job */
  async #run(job) {
    const signal = job.cancelling.signal;
    const options = this.options();
    for (let tries = 1; !signal.aborted; ) {
      const problem = await attempt(job, options, signal);
      if (problem === null || signal.aborted) {
        return;
      }
      if (problem.status === 401 && (await askForKey())) {
        continue;
      }
      if (signal.aborted) {
        return;
      }
      job.problem = problem;
      if (problem.retryAfter === null || tries++ >= MOST_TRIES) {
        job.become('failed');
        return;
      }
      await countDown(job, problem.retryAfter, signal);
    }
  }
}

/**
 * Send a job once.
 *
 * @param {Job} job
 * @param {import('./api.js').Options} options
 * @param {AbortSignal} signal
 * @returns {Promise<Problem | null>} null where the answer came
 */
async function attempt(job, options, signal) {
  const id = newRequestId();
  const over = new AbortController();
  const began = performance.now();
  const states = new AbortController();
  let questions = 0;
  Object.assign(job, { options, segments: [], uploaded: 0 });
  job.become('uploading');
  if (inSegments(options) && job.duration === null) {
    mediaDuration(job.blob).then((duration) => {
      job.duration = duration;
    });
  }
  try {
    const answered = await recognize({
      blob: job.blob,
      name: job.name,
      options,
      id,
      anew: job.anew,
      signal,
      onUpload(share) {
        if (signal.aborted || over.signal.aborted) {
          return;
        }
        job.uploaded = share;
        job.become(share < 1 ? 'uploading' : 'received');
        if (share === 1 && questions++ === 0) {
          followRequest(job, id, AbortSignal.any([signal, over.signal, states.signal]));
        }
      },
      onSegments(segments) {
        states.abort(); // from now on they tell where it is
        job.segments = segments;
        job.become('running');
      },
    });
    Object.assign(job, { answered, problem: null, wall: performance.now() - began });
    over.abort();
    job.become('done');
    return null;
  } catch (error) {
    if (error instanceof Problem) {
      return error;
    }
    throw error;
  } finally {
    over.abort();
  }
}

/**
 * Ask the service where the request is, until it is over.
 *
 * @param {Job} job
 * @param {string} id
 * @param {AbortSignal} over
 */
async function followRequest(job, id, over) {
  await pause(FIRST_QUESTION, over);
  while (!over.aborted) {
    const { state, ahead } = await requestState(id, over);
    if (over.aborted) {
      return;
    }
    if (state === 'decoding' || state === 'queued' || state === 'running') {
      job.ahead = ahead;
      job.become(state);
    }
    await pause(NEXT_QUESTION, over);
  }
}

/**
 * @param {Job} job
 * @param {number} seconds
 * @param {AbortSignal} signal
 */
async function countDown(job, seconds, signal) {
  for (let left = Math.max(1, Math.ceil(seconds)); left > 0 && !signal.aborted; left--) {
    job.retryIn = left;
    job.become('busy');
    await pause(1000, signal);
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal ends it early
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, signal.aborted ? 0 : milliseconds);
    signal.addEventListener('abort', end);
  });
}
