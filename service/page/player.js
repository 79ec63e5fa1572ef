// Playing decoded audio from any moment.

/** @type {AudioContext | null} */
let context = null;

/** One piece of audio. Fires `state` when it starts or stops. */
export class Player extends EventTarget {
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
}
