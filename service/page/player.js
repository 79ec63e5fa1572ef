// Playing a file from any moment: decoded as a whole where it is short, else as the browser reads it.

/** Decoded audio takes four bytes a sample: this many samples are 240 MB, a call of an hour on two channels at 8 kHz. */
const MOST_SAMPLES = 60e6;
/** What every browser decodes to. */
const RATES = [8_000, 48_000];

/** @typedef {import('./language.js').Key} Key */
/** @typedef {{buffer: AudioBuffer | null, player: BufferPlayer | MediaPlayer | null, notice: Key | null}} Sound */

/** @type {AudioContext | null} */
let context = null;
/** The last file decoded, since its channels and its answers come on show one after the other. */
/** @type {{blob: Blob, buffer: Promise<AudioBuffer | null>} | null} */
let last = null;

/**
 * Make a file heard and seen, as far as this browser can.
 *
 * @param {Blob} blob
 * @param {import('./api.js').Audio} audio what the service found in it: only then it is known how much will come out
 * @returns {Promise<Sound>}
 */
export async function openSound(blob, audio) {
  const rate = Math.min(Math.max(audio.sampling_rate, RATES[0]), RATES[1]);
  if (audio.duration * rate * audio.channels > MOST_SAMPLES) {
    const player = await openMedia(blob);
    return { buffer: null, player, notice: player ? 'player.long' : 'player.long.silent' };
  }
  if (last?.blob !== blob) {
    last = { blob, buffer: decode(blob, rate) };
  }
  const buffer = await last.buffer;
  return { buffer, player: buffer && new BufferPlayer(buffer), notice: buffer ? null : 'player.undecodable' };
}

/**
 * How long a file is, before the service has said so.
 *
 * @param {Blob} blob
 * @returns {Promise<number | null>} seconds, null where this browser cannot say
 */
export async function mediaDuration(blob) {
  const media = await openMedia(blob);
  const duration = media?.element.duration ?? Number.NaN;
  media?.close();
  return Number.isFinite(duration) && duration > 0 ? duration : null;
}

/**
 * @param {Blob} blob
 * @param {number} rate
 * @returns {Promise<AudioBuffer | null>}
 */
async function decode(blob, rate) {
  try {
    return await new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());
  } catch {
    return null;
  }
}

/**
 * @param {Blob} blob
 * @returns {Promise<MediaPlayer | null>}
 */
function openMedia(blob) {
  const element = new Audio();
  element.preload = 'metadata';
  element.src = URL.createObjectURL(blob);
  return new Promise((resolve) => {
    element.addEventListener('loadedmetadata', () => resolve(new MediaPlayer(element)), { once: true });
    element.addEventListener('error', () => {
      URL.revokeObjectURL(element.src);
      resolve(null);
    });
  });
}

/** Plays decoded audio, to the sample. Fires `state` when it starts or stops. */
export class BufferPlayer extends EventTarget {
  /** @param {AudioBuffer} buffer */
  constructor(buffer) {
    super();
    this.buffer = buffer;
    /** @type {AudioBufferSourceNode | null} */
    this.source = null;
    /** Where playing began or stopped, in seconds. */
    this.from = 0;
    this.began = 0;
  }

  get playing() {
    return this.source !== null;
  }

  /** Seconds from the beginning. */
  get position() {
    const played = this.source && context ? context.currentTime - this.began : 0;
    return Math.min(this.from + played, this.buffer.duration);
  }

  /** @param {number} from seconds */
  play(from) {
    this.pause();
    context ??= new AudioContext(); // only now: browsers want it to be asked for by the person
    context.resume();
    this.from = from < this.buffer.duration - 0.05 ? from : 0;
    this.began = context.currentTime;
    const source = new AudioBufferSourceNode(context, { buffer: this.buffer });
    source.connect(context.destination);
    source.addEventListener('ended', () => {
      if (this.source === source) {
        this.source = null;
        this.from = 0;
        this.dispatchEvent(new Event('state'));
      }
    });
    source.start(0, this.from);
    this.source = source;
    this.dispatchEvent(new Event('state'));
  }

  pause() {
    if (this.source) {
      const position = this.position;
      this.source.stop();
      this.source = null;
      this.from = position;
      this.dispatchEvent(new Event('state'));
    }
  }

  close() {
    this.pause();
  }
}

/** Plays a long file bit by bit, so that it need not fit into memory. Fires `state` when it starts or stops. */
export class MediaPlayer extends EventTarget {
  /** @param {HTMLAudioElement} element that knows its length */
  constructor(element) {
    super();
    this.element = element;
    for (const event of ['play', 'pause', 'ended']) {
      element.addEventListener(event, () => this.dispatchEvent(new Event('state')));
    }
  }

  get playing() {
    return !this.element.paused && !this.element.ended;
  }

  /** Seconds from the beginning. */
  get position() {
    return this.element.ended ? 0 : this.element.currentTime;
  }

  /** @param {number} from seconds */
  play(from) {
    this.element.currentTime = from;
    this.element.play().catch(() => this.dispatchEvent(new Event('state'))); // such as where it is paused at once
  }

  pause() {
    this.element.pause();
  }

  close() {
    this.element.pause();
    URL.revokeObjectURL(this.element.src);
    this.element.removeAttribute('src');
    this.element.load();
  }
}
