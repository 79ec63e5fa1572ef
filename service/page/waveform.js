// Decoding audio in the browser, and drawing it.

import { message } from './language.js';
import { themeColour } from './theme.js';

/** Decoded audio takes four bytes a sample: this many samples are 400 MB. */
const MOST_SAMPLES = 100e6;
const RATE = 48_000;
const AXIS = 20;
const BAR = 3;
/** Seconds between marks on the axis, of which the first is taken that leaves them far enough apart. */
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];

/**
 * Decode a file.
 *
 * @param {Blob} blob
 * @param {import('./api.js').Audio} audio what the service found in it: only then it is known how much will come out
 * @returns {Promise<AudioBuffer | 'player.long' | 'player.undecodable'>} or the reason why not
 */
export async function decodeAudio(blob, audio) {
  if (audio.duration * RATE * audio.channels > MOST_SAMPLES) {
    return 'player.long';
  }
  try {
    return await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await blob.arrayBuffer());
  } catch {
    return 'player.undecodable';
  }
}

/**
 * The loudest sample in each of `bars` equal stretches, as a share of the loudest of all.
 *
 * @param {AudioBuffer} buffer
 * @param {number | null} channel null for the mean of all
 * @param {number} duration seconds that all bars cover
 * @param {number} bars
 * @returns {Float32Array<ArrayBuffer>}
 */
function peaks(buffer, channel, duration, bars) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, index) => buffer.getChannelData(index));
  const chosen = channel !== null && channel < channels.length ? [channels[channel]] : channels;
  const found = new Float32Array(bars);
  const width = (duration * buffer.sampleRate) / bars;
  for (let bar = 0; bar < bars; bar++) {
    const end = Math.min(buffer.length, Math.floor((bar + 1) * width));
    for (let at = Math.floor(bar * width); at < end; at++) {
      let sum = 0;
      for (const samples of chosen) {
        sum += samples[at];
      }
      found[bar] = Math.max(found[bar], Math.abs(sum));
    }
  }
  const loudest = Math.max(...found);
  return loudest ? found.map((peak) => peak / loudest) : found;
}

/** A waveform on a canvas, with its axis. */
export class Waveform {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {object} audio
   * @param {AudioBuffer | null} audio.buffer null where only the axis can be drawn
   * @param {number | null} audio.channel null for the mean of all
   * @param {number} audio.duration seconds
   * @param {import('./api.js').Stretch | null} audio.scored null where everything was
   */
  constructor(canvas, { buffer, channel, duration, scored }) {
    this.canvas = canvas;
    this.buffer = buffer;
    this.channel = channel;
    this.duration = duration;
    this.scored = scored;
    this.bars = new Float32Array();
  }

  /** @param {number} played seconds up to which it was played */
  draw(played) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = devicePixelRatio;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const context = this.canvas.getContext('2d');
    if (!context || !width) {
      return;
    }
    context.scale(scale, scale);
    this.paint(context, width, height, played);
  }

  /**
   * Draw anywhere.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   * @param {number} played seconds up to which it was played
   */
  paint(context, width, height, played) {
    const bars = Math.floor(width / BAR);
    if (this.buffer && this.bars.length !== bars) {
      this.bars = peaks(this.buffer, this.channel, this.duration, bars);
    }
    this.#drawTrimmed(context, width, height - AXIS);
    this.#drawBars(context, width, height - AXIS, played);
    this.#drawAxis(context, width, height);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   * @param {number} played
   */
  #drawBars(context, width, height, played) {
    const middle = height / 2;
    const [begin, end] = this.scored ? [this.scored.start, this.scored.end] : [0, this.duration];
    this.bars.forEach((peak, bar) => {
      const time = ((bar + 0.5) * BAR * this.duration) / width;
      const size = Math.max(1.5, peak * (height - 8));
      const trimmed = time < begin || time > end;
      const colour = time <= played ? '--accent' : trimmed ? '--wave-trimmed' : '--wave';
      context.fillStyle = themeColour(colour);
      context.beginPath();
      context.roundRect(bar * BAR + 0.5, middle - size / 2, BAR - 1, size, 1);
      context.fill();
    });
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   */
  #drawTrimmed(context, width, height) {
    if (!this.scored) {
      return;
    }
    const perSecond = width / this.duration;
    for (const [begin, end] of [
      [0, this.scored.start],
      [this.scored.end, this.duration],
    ]) {
      const left = begin * perSecond;
      const size = (end - begin) * perSecond;
      if (size < 1) {
        continue;
      }
      context.save();
      context.beginPath();
      context.rect(left, 0, size, height);
      context.clip();
      context.fillStyle = themeColour('--trimmed');
      context.fillRect(left, 0, size, height);
      context.strokeStyle = themeColour('--trimmed-line');
      context.lineWidth = 1;
      for (let at = left - height; at < left + size; at += 7) {
        context.beginPath();
        context.moveTo(at, height);
        context.lineTo(at + height, 0);
        context.stroke();
      }
      const label = message('player.trimmed');
      context.font = '11px system-ui, sans-serif';
      if (context.measureText(label).width < size - 12) {
        context.fillStyle = themeColour('--muted');
        context.fillText(label, left + 6, 14);
      }
      context.restore();
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   */
  #drawAxis(context, width, height) {
    const step = STEPS.find((seconds) => (seconds / this.duration) * width >= 56) ?? 3600;
    context.font = '11px system-ui, sans-serif';
    context.fillStyle = themeColour('--muted');
    context.strokeStyle = themeColour('--line');
    context.beginPath();
    context.moveTo(0, height - AXIS + 0.5);
    context.lineTo(width, height - AXIS + 0.5);
    context.stroke();
    for (let mark = 0; mark * step <= this.duration; mark++) {
      const time = mark * step;
      const at = (time / this.duration) * width;
      const label = time < 60 || step < 1 ? `${Number(time.toFixed(1))} s` : clock(time);
      const size = context.measureText(label).width;
      if (mark === 0 || at + size / 2 <= width) {
        context.fillText(label, mark === 0 ? 0 : at - size / 2, height - 5);
      }
    }
  }
}

/**
 * Minutes and seconds.
 *
 * @param {number} seconds
 * @param {number} [digits] after the point
 */
export function clock(seconds, digits = 0) {
  const rest = (seconds % 60).toFixed(digits);
  return `${Math.floor(seconds / 60)}:${rest.padStart(digits ? digits + 3 : 2, '0')}`;
}
