// The result as one PNG image: emotion, score bars, waveform, timeline and segments.

import { EMOJI_FONT, TEXT_FONT } from '../common/canvas.js';
import { emoji, emotionColour, emotionName, emotionOf, sortedByScore } from '../common/emotions.js';
import { durationText, percent } from '../common/format.js';
import { themeColour } from '../common/theme.js';
import { language, message } from '../i18n/language.js';
import { drawnTracks } from '../tracks/tracks.js';

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

/**
 * Draw the image.
 *
 * @param {object} what
 * @param {string} what.name of the file
 * @param {import('../api/http-api.js').Answered} what.answered
 * @param {import('../api/http-api.js').Result} what.result
 * @returns {Promise<Blob>} PNG
 */
export async function drawChartImage({ name, answered, result }) {
  const { waveform, timeline, lanes } = drawnTracks();
  const upper = Math.max(BAR * result.scores.length, 200) + 24;
  const wave = waveform?.peaks ? WAVEFORM : AXIS;
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
    context.drawImage(await timeline.drawCopy(INNER * SCALE, TIMELINE * SCALE), 0, 0, INNER, TIMELINE);
    context.translate(0, TIMELINE);
  }
  if (lanes) {
    lanes.paint(context, INNER);
    context.translate(0, lanes.height);
  }
  const { model, audio } = answered.answer;
  const about = message('model.about', { id: model.id, dtype: model.dtype, device: model.device });
  write(context, `${about} · ${model.revision} · ${durationText(audio.duration)}`, 0, 30, {
    style: '14px',
    colour: '--muted',
  });
  return new Promise((resolve, reject) => {
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error('the chart image could not be encoded'))),
      'image/png',
    );
  });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import('../api/http-api.js').Result} result
 */
function drawEmotion(context, { label, score }) {
  if (label === null) {
    write(context, message('result.no_speech'), 0, 100, { style: '600 34px' });
    return;
  }
  const emotion = emotionOf(label);
  write(context, emoji(emotion), 0, 88, { style: '84px', font: EMOJI_FONT });
  const names = `${emotionName(emotion, 'en')} ${emotionName(emotion, 'zh')}`;
  write(context, names, 0, 148, { style: '600 34px' });
  write(context, percent(score ?? 0), 0, 186, { style: '24px', colour: '--muted' });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import('../api/http-api.js').Result} result
 */
function drawBars(context, { scores }) {
  for (const [row, { label, score }] of sortedByScore(scores).entries()) {
    const emotion = emotionOf(label);
    const y = BAR * row;
    write(context, emoji(emotion), 420, y + 16, { font: EMOJI_FONT });
    write(context, emotionName(emotion, language()), 450, y + 16);
    for (const [share, colour] of /** @type {const} */ ([
      [1, '--track'],
      [score, emotionColour(emotion)],
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
function write(context, text, x, y, { style = '16px', colour = '--text', font = TEXT_FONT } = {}) {
  context.font = `${style} ${font}`;
  context.fillStyle = themeColour(colour);
  context.fillText(text, x, y, INNER);
}
