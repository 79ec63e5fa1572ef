// The waveform of decoded audio on a canvas, with a time axis.

import { prepareCanvas } from '../common/canvas.js';
import { clock } from '../common/format.js';
import { themeColour } from '../common/theme.js';
import { message } from '../i18n/language.js';

/** Height of the axis and width of a bar, in pixels. */
const AXIS = 20;
const BAR = 3;
/** Seconds between ticks of the axis; the smallest step with enough room for labels is used. */
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
/** Number of peaks computed once for a file; bars of any width are made from them. */
const PEAKS = 8192;
/** At most about this many samples are read for a peak; long files are sampled at intervals. */
const SAMPLES_PER_PEAK = 500;

/**
 * The peak in each of `PEAKS` equal intervals.
 *
 * @param {AudioBuffer} buffer
 * @param {number | null} channel null for the mean of all
 * @param {number} duration seconds that the intervals span
 * @returns {Float32Array<ArrayBuffer>}
 */
function computePeaks(buffer, channel, duration) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, index) => buffer.getChannelData(index));
  const chosen = channel !== null && channel < channels.length ? [channels[channel]] : channels;
  const found = new Float32Array(PEAKS);
  const width = (duration * buffer.sampleRate) / PEAKS;
  const step = Math.max(1, Math.floor(width / SAMPLES_PER_PEAK));
  for (let bin = 0; bin < PEAKS; bin++) {
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
 * The height of each bar, from 0 to 1, relative to the highest peak.
 *
 * @param {Float32Array<ArrayBuffer>} peaks
 * @param {number} bars
 * @returns {Float32Array<ArrayBuffer>}
 */
function barHeights(peaks, bars) {
  const found = Float32Array.from({ length: bars }, (_, bar) =>
    Math.max(...peaks.subarray(Math.floor((bar * PEAKS) / bars), Math.ceil(((bar + 1) * PEAKS) / bars))),
  );
  const loudest = Math.max(...found);
  return loudest ? found.map((peak) => peak / loudest) : found;
}

/** A waveform; before its audio is decoded, only the axis. */
export class Waveform {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {object} audio
   * @param {number | null} audio.channel null for the mean of all
   * @param {number} audio.duration seconds
   * @param {import('../api/http-api.js').Interval | null} audio.scored null if everything was
   */
  constructor(canvas, { channel, duration, scored }) {
    this.canvas = canvas;
    this.channel = channel;
    this.duration = duration;
    this.scored = scored;
    /** @type {Float32Array<ArrayBuffer> | null} */
    this.peaks = null;
    this.bars = new Float32Array();
  }

  /** @param {AudioBuffer} buffer the decoded audio */
  setAudio(buffer) {
    this.peaks = computePeaks(buffer, this.channel, this.duration);
    this.bars = new Float32Array();
  }

  /** @param {number} played position of the player in seconds */
  draw(played) {
    const area = prepareCanvas(this.canvas);
    if (area) {
      this.paint(area.context, area.width, area.height, played);
    }
  }

  /**
   * Draw on any canvas.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   * @param {number} played position of the player in seconds
   */
  paint(context, width, height, played) {
    const bars = Math.floor(width / BAR);
    if (this.peaks && this.bars.length !== bars) {
      this.bars = barHeights(this.peaks, bars);
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
        context.fillText(label, mark === 0 ? 4 : at - size / 2, height - 5); // the first label is not centred: the playhead may be there
      }
    }
  }
}
