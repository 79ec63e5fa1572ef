// The result as one picture: emotion, bars, and what is drawn of the audio.

import { EMOJI } from './canvas.js';
import { colourOf, emoji, emotionName, emotionOf } from './emotions.js';
import { length, percent } from './format.js';
import { language, message } from './language.js';
import { themeColour } from './theme.js';
import { drawnTracks } from './tracks.js';

const WIDTH = 1200;
const MARGIN = 48;
const INNER = WIDTH - 2 * MARGIN;
const SCALE = 2;
const HEADING = 40;
const BAR = 28;
const FOOTER = 40;
const WAVEFORM = 150;
const AXIS = 24;
const TIMELINE = 220;
const FONT = 'system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif';

/**
 * @param {object} what
 * @param {string} what.name of the file
 * @param {import('./api.js').Answered} what.answered
 * @param {import('./api.js').Result} what.result
 * @returns {Promise<Blob>} PNG
 */
export async function drawPicture({ name, answered, result }) {
  const { waveform, timeline, lanes } = drawnTracks();
  const upper = Math.max(BAR * result.scores.length, 200) + 24;
  const wave = waveform?.fine ? WAVEFORM : AXIS;
  const height = 2 * MARGIN + HEADING + upper + wave + (timeline ? TIMELINE + 8 : 0) + (lanes?.height ?? 0) + FOOTER;
  const canvas = document.createElement('canvas');
  canvas.width = WIDTH * SCALE;
  canvas.height = height * SCALE;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
  context.scale(SCALE, SCALE);
  context.fillStyle = themeColour('--card');
  context.fillRect(0, 0, WIDTH, height);
  context.translate(MARGIN, MARGIN);
  write(context, name, 0, 14, { style: '600 18px' });
  context.translate(0, HEADING);
  drawEmotion(context, result);
  drawBars(context, result);
  context.translate(0, upper);
  waveform?.paint(context, INNER, wave, 0);
  context.translate(0, wave + 8);
  if (timeline) {
    context.drawImage(await timeline.picture(INNER * SCALE, TIMELINE * SCALE), 0, 0, INNER, TIMELINE);
    context.translate(0, TIMELINE);
  }
  if (lanes) {
    lanes.paint(context, INNER);
    context.translate(0, lanes.height);
  }
  const { model, audio } = answered.answer;
  const about = message('model.about', { id: model.id, dtype: model.dtype, device: model.device });
  write(context, `${about} · ${model.revision} · ${length(audio.duration)}`, 0, 30, {
    style: '14px',
    colour: '--muted',
  });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('the picture could not be made'))), 'image/png');
  });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import('./api.js').Result} result
 */
function drawEmotion(context, { label, score }) {
  if (label === null) {
    write(context, message('result.nobody'), 0, 100, { style: '600 34px' });
    return;
  }
  const emotion = emotionOf(label);
  write(context, emoji(emotion), 0, 88, { style: '84px', font: EMOJI });
  const names = `${emotionName(emotion, 'en')} ${emotionName(emotion, 'zh')}`;
  write(context, names, 0, 148, { style: '600 34px' });
  write(context, percent(score ?? 0), 0, 186, { style: '24px', colour: '--muted' });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import('./api.js').Result} result
 */
function drawBars(context, { scores }) {
  const sorted = scores.toSorted((one, other) => other.score - one.score);
  for (const [row, { label, score }] of sorted.entries()) {
    const emotion = emotionOf(label);
    const y = BAR * row;
    write(context, emoji(emotion), 420, y + 16, { font: EMOJI });
    write(context, emotionName(emotion, language()), 450, y + 16);
    for (const [share, colour] of /** @type {const} */ ([
      [1, '--track'],
      [score, colourOf(emotion)],
    ])) {
      context.fillStyle = themeColour(colour);
      context.fillRect(570, y + 4, 440 * share, 14);
    }
    write(context, percent(score), 1026, y + 16);
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {string} text
 * @param {number} x
 * @param {number} y
 * @param {{style?: string, colour?: string, font?: string}} [look]
 */
function write(context, text, x, y, { style = '16px', colour = '--text', font = FONT } = {}) {
  context.font = `${style} ${font}`;
  context.fillStyle = themeColour(colour);
  context.fillText(text, x, y, INNER);
}
