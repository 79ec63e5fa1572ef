// The waveform of decoded audio, on a canvas, with its axis.

import { fit } from './canvas.js';
import { clock } from './format.js';
import { message } from './language.js';
import { themeColour } from './theme.js';

const AXIS = 20;
const BAR = 3;
/** Seconds between marks on the axis, of which the first is taken that leaves them far enough apart. */
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
/** Stretches for which the loudest sample is looked up, once for all sizes. */
const FINE = 8192;
/** Samples that are looked at in each: of an hour, not every one. */
const LOOKS = 500;

/**
 * The loudest sample in each of `FINE` equal stretches.
 *
 * @param {AudioBuffer} buffer
 * @param {number | null} channel null for the mean of all
 * @param {number} duration seconds that all stretches cover
 * @returns {Float32Array<ArrayBuffer>}
 */
function finePeaks(buffer, channel, duration) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, index) => buffer.getChannelData(index));
  const chosen = channel !== null && channel < channels.length ? [channels[channel]] : channels;
  const found = new Float32Array(FINE);
  const width = (duration * buffer.sampleRate) / FINE;
  const step = Math.max(1, Math.floor(width / LOOKS));
  for (let bin = 0; bin < FINE; bin++) {
    const end = Math.min(buffer.length, Math.floor((bin + 1) * width));
    for (let at = Math.floor(bin * width); at < end; at += step) {
      let sum = 0;
      for (const samples of chosen) {
        sum += samples[at];
      }
      found[bin] = Math.max(found[bin], Math.abs(sum));
    }
  }
  return found;
}

/**
 * The loudest of the fine stretches in each of `bars`, as a share of the loudest of all.
 *
 * @param {Float32Array<ArrayBuffer>} fine
 * @param {number} bars
 * @returns {Float32Array<ArrayBuffer>}
 */
function coarsePeaks(fine, bars) {
  const found = Float32Array.from({ length: bars }, (_, bar) =>
    Math.max(...fine.subarray(Math.floor((bar * FINE) / bars), Math.ceil(((bar + 1) * FINE) / bars))),
  );
  const loudest = Math.max(...found);
  return loudest ? found.map((peak) => peak / loudest) : found;
}

/** A waveform, or only its axis where there is nothing to draw. */
export class Waveform {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {object} audio
   * @param {number | null} audio.channel null for the mean of all
   * @param {number} audio.duration seconds
   * @param {import('./api.js').Stretch | null} audio.scored null where everything was
   */
  constructor(canvas, { channel, duration, scored }) {
    this.canvas = canvas;
    this.channel = channel;
    this.duration = duration;
    this.scored = scored;
    /** @type {Float32Array<ArrayBuffer> | null} */
    this.fine = null;
    this.bars = new Float32Array();
  }

  /** @param {AudioBuffer} buffer what is to be drawn; before there is one, only the axis is */
  hear(buffer) {
    this.fine = finePeaks(buffer, this.channel, this.duration);
    this.bars = new Float32Array();
  }

  /** @param {number} played seconds up to which it was played */
  draw(played) {
    const place = fit(this.canvas);
    if (place) {
      this.paint(place.context, place.width, place.height, played);
    }
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
    if (this.fine && this.bars.length !== bars) {
      this.bars = coarsePeaks(this.fine, bars);
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
        context.fillText(label, mark === 0 ? 4 : at - size / 2, height - 5); // beside the playhead
      }
    }
  }
}
