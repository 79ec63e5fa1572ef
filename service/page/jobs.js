// Jobs: each sends one file to the service. Two run at a time; a busy service is asked again after `Retry-After`.

import { askForKey } from './api/api-key.js';
import { asksForSegments, newRequestId, recognize, requestState } from './api/http-api.js';
import { Problem } from './api/problem.js';
import { mediaDuration } from './tracks/player.js';

const CONCURRENT_JOBS = 2;
const MAX_TRIES = 8;
/** Milliseconds before the state of a request is polled first; quick answers arrive earlier. */
const FIRST_POLL = 250;
/** Milliseconds between polls. */
const POLL_INTERVAL = 500;

/** @typedef {'pending' | 'uploading' | 'received' | 'decoding' | 'queued' | 'running' | 'busy' | 'done' | 'failed' | 'cancelled'} JobState */

/** One file, its state and its answer. Fires `change`. */
export class Job extends EventTarget {
  /**
   * @param {string} name
   * @param {Blob} blob
   */
  constructor(name, blob) {
    super();
    this.name = name;
    this.blob = blob;
    /** @type {JobState} */
    this.state = 'pending';
    /** Uploaded share, 0 to 1. */
    this.uploaded = 0;
    /** @type {import('./api/http-api.js').RequestState['ahead']} what is ahead in the queue, in state `queued` */
    this.ahead = undefined;
    /** Seconds until the next try, in state `busy`. */
    this.retryIn = 0;
    /** @type {import('./api/http-api.js').Answered | null} */
    this.answered = null;
    /** @type {import('./api/http-api.js').Segment[]} received before the answer is complete */
    this.segments = [];
    /** @type {number | null} seconds, as the browser reads it from the file; null if unknown */
    this.duration = null;
    /** @type {import('./api/http-api.js').Options} of the last try */
    this.options = [];
    /** Whether the answer is a stored one of an example. */
    this.stored = false;
    /** Milliseconds from the start of the upload to the answer. */
    this.roundTrip = 0;
    /** @type {Problem | null} of the last try */
    this.problem = null;
    /** Whether to compute the answer even if the service has it in its cache. */
    this.bypassCache = false;
    this.cancelling = new AbortController();
  }

  /** Whether the job is waiting or running. */
  get active() {
    return !['done', 'failed', 'cancelled'].includes(this.state);
  }

  /** Cancel the job, and the request if there is one. */
  cancel() {
    if (this.active) {
      this.cancelling.abort();
      this.setState('cancelled');
    }
  }

  /**
   * @param {JobState} state
   */
  setState(state) {
    this.state = state;
    this.dispatchEvent(new Event('change'));
  }

  /**
   * Finish with a stored answer.
   *
   * @param {import('./api/http-api.js').Answer} answer
   * @param {import('./api/http-api.js').Options} options
   */
  setStoredAnswer(answer, options) {
    this.answered = { answer, text: JSON.stringify(answer), timings: null, cached: false };
    this.options = options;
    this.stored = true;
    this.setState('done');
  }
}

/** Runs jobs in the order in which they were added. */
export class JobQueue {
  /** @param {() => import('./api/http-api.js').Options} options read when a job starts */
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
    const initial = { answered: null, segments: [], stored: false, problem: null };
    Object.assign(job, { cancelling: new AbortController(), ...initial });
    job.setState('pending');
    this.waiting.push(job);
    this.#next();
  }

  #next() {
    while (this.running < CONCURRENT_JOBS) {
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
      const problem = await sendOnce(job, options, signal);
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
      if (problem.retryAfter === null || tries++ >= MAX_TRIES) {
        job.setState('failed');
        return;
      }
      await countDown(job, problem.retryAfter, signal);
    }
  }
}

/**
 * Send the file of a job once.
 *
 * @param {Job} job
 * @param {import('./api/http-api.js').Options} options
 * @param {AbortSignal} signal
 * @returns {Promise<Problem | null>} null if the answer arrived
 */
async function sendOnce(job, options, signal) {
  const id = newRequestId();
  const ended = new AbortController();
  const began = performance.now();
  const segmentsArrived = new AbortController();
  let polling = false;
  Object.assign(job, { options, segments: [], uploaded: 0 });
  job.setState('uploading');
  if (asksForSegments(options) && job.duration === null) {
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
      bypassCache: job.bypassCache,
      signal,
      onUpload(share) {
        if (signal.aborted || ended.signal.aborted) {
          return;
        }
        job.uploaded = share;
        job.setState(share < 1 ? 'uploading' : 'received');
        if (share === 1 && !polling) {
          polling = true;
          pollState(job, id, AbortSignal.any([signal, ended.signal, segmentsArrived.signal]));
        }
      },
      onSegments(segments) {
        segmentsArrived.abort(); // from now on they show the progress
        job.segments = segments;
        job.setState('running');
      },
    });
    Object.assign(job, { answered, problem: null, roundTrip: performance.now() - began });
    ended.abort();
    job.setState('done');
    return null;
  } catch (error) {
    if (error instanceof Problem) {
      return error;
    }
    throw error;
  } finally {
    ended.abort();
  }
}

/**
 * Poll the state of a request until `signal` is aborted.
 *
 * @param {Job} job
 * @param {string} id
 * @param {AbortSignal} signal
 */
async function pollState(job, id, signal) {
  await pause(FIRST_POLL, signal);
  while (!signal.aborted) {
    const { state, ahead } = await requestState(id, signal);
    if (signal.aborted) {
      return;
    }
    if (state === 'decoding' || state === 'queued' || state === 'running') {
      job.ahead = ahead;
      job.setState(state);
    }
    await pause(POLL_INTERVAL, signal);
  }
}

/**
 * Wait before the next try, and count down the seconds.
 *
 * @param {Job} job
 * @param {number} seconds
 * @param {AbortSignal} signal
 */
async function countDown(job, seconds, signal) {
  for (let left = Math.max(1, Math.ceil(seconds)); left > 0 && !signal.aborted; left--) {
    job.retryIn = left;
    job.setState('busy');
    await pause(1000, signal);
  }
}

/**
 * Wait.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} signal ends the wait early
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
