// Play a file from any position: short audio is decoded as a whole, long audio is played by a media element.

/** Longer audio is not decoded. A decoded sample takes 4 bytes, so this is 240 MB: an hour of two channels at 8 kHz. */
const MAX_SAMPLES = 60e6;
/** Lowest and highest sampling rate, in Hz, to which every browser decodes. */
const RATES = [8_000, 48_000];

/** Seconds by which the browser's decoding may be shorter than the service's: it may trim an encoder's padding. */
const TRIMMED = 0.2;

/** @typedef {import('../i18n/language.js').Key} Key */
/** @typedef {{buffer: AudioBuffer | null, player: BufferPlayer | MediaPlayer | null, notice: Key | null}} OpenedAudio buffer is null if the file was not decoded, player if it cannot be played */

/** @type {AudioContext | null} */
let context = null;
/** @type {{blob: Blob, buffer: Promise<AudioBuffer | null>} | null} kept, because its other channels and answers may be shown next */
let last = null;

/**
 * Open a file for playing and drawing, as far as this browser can decode it.
 *
 * @param {Blob} blob
 * @param {import('../api/http-api.js').Audio} audio as the service describes it, from which the decoded size is known
 * @returns {Promise<OpenedAudio>}
 */
export async function openAudio(blob, audio) {
  const rate = Math.min(Math.max(audio.sampling_rate, RATES[0]), RATES[1]);
  if (audio.duration * rate * audio.channels > MAX_SAMPLES) {
    const player = await openMedia(blob);
    return { buffer: null, player, notice: player ? 'player.long' : 'player.long.silent' };
  }
  if (last?.blob !== blob) {
    last = { blob, buffer: decode(blob, rate) };
  }
  const buffer = await last.buffer;
  if (buffer && audio.duration - buffer.duration > TRIMMED) {
    // Browsers decode a file without its gaps, or only the first part of a chain. The buffer's times are then not those
    // of the answer, while a media element follows the file's clock.
    const player = await openMedia(blob);
    return { buffer: null, player, notice: player ? 'player.times' : 'player.times.silent' };
  }
  return { buffer, player: buffer && new BufferPlayer(buffer), notice: buffer ? null : 'player.undecodable' };
}

/**
 * The duration of a file according to the browser.
 *
 * @param {Blob} blob
 * @returns {Promise<number | null>} seconds, null if unknown
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

/** Plays decoded audio, exact to the sample. Fires `state` when it starts or stops. */
class BufferPlayer extends EventTarget {
  /** @param {AudioBuffer} buffer */
  constructor(buffer) {
    super();
    this.buffer = buffer;
    /** @type {AudioBufferSourceNode | null} */
    this.source = null;
    /** Position at which playing last started or stopped, in seconds. */
    this.from = 0;
    /** Time of the audio context at which playing started. */
    this.startedAt = 0;
  }

  get playing() {
    return this.source !== null;
  }

  /** Seconds from the beginning. */
  get position() {
    const played = this.source && context ? context.currentTime - this.startedAt : 0;
    return Math.min(this.from + played, this.buffer.duration);
  }

  /** @param {number} from seconds */
  play(from) {
    this.pause();
    context ??= new AudioContext(); // created here: browsers require an action of the user
    context.resume();
    this.from = from < this.buffer.duration - 0.05 ? from : 0;
    this.startedAt = context.currentTime;
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

/** Plays a long file with a media element, without decoding it into memory. Fires `state` when it starts or stops. */
class MediaPlayer extends EventTarget {
  /** @param {HTMLAudioElement} element with loaded metadata */
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
    this.element.play().catch(() => this.dispatchEvent(new Event('state'))); // rejected if it is paused before it starts
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
