// Waveform and timeline under one another, with one position for both: pointing, playing, keys.

import { find, make } from './dom.js';
import { colourOf, emoji, emotionOf } from './emotions.js';
import { followLanguage, message, setEmotion, setLabel, setText } from './language.js';
import { Player } from './player.js';
import { showNotice } from './problems.js';
import { percent, segments, showSegments } from './segments.js';
import { followTheme } from './theme.js';
import { columns, scoresAt, Timeline } from './timeline.js';
import { clock, decodeAudio, Waveform } from './waveform.js';

const tracks = find('tracks', HTMLElement);
const playButton = find('play', HTMLButtonElement);

/**
 * @typedef {object} Shown
 * @property {number} duration seconds
 * @property {import('./api.js').Result} result
 * @property {Waveform} waveform
 * @property {Player | null} player null where the browser cannot play the file
 * @property {Timeline | null} timeline null without scores over time
 */

/** @type {Shown | null} */
let shown = null;
/** Seconds at which the position stands, and at which the pointer is. */
let position = 0;
/** @type {number | null} */
let pointed = null;
/** The next step of following the player. */
let frame = 0;
/** Counts what was shown, so that decoding that comes late is known as such. */
let turn = 0;

/** Connect pointer, keys and buttons, once. */
export function startTracks() {
  const timeOf = (/** @type {MouseEvent} */ event) => {
    const { left, width } = tracks.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
    return share * (shown?.duration ?? 0);
  };
  tracks.addEventListener('pointermove', (event) => point(timeOf(event)));
  tracks.addEventListener('pointerleave', () => point(null));
  tracks.addEventListener('click', (event) => moveTo(timeOf(event), true));
  tracks.addEventListener('keydown', onKey);
  playButton.addEventListener('click', toggle);
  for (const id of ['draw-stacked', 'draw-lines']) {
    find(id, HTMLInputElement).addEventListener('change', () => {
      if (shown?.timeline) {
        shown.timeline.stacked = find('draw-stacked', HTMLInputElement).checked;
        shown.timeline.draw();
      }
    });
  }
  new ResizeObserver(() => {
    shown?.timeline?.resize();
    draw();
  }).observe(tracks);
  followTheme(() => {
    shown?.timeline?.draw();
    draw();
  });
  followLanguage(draw);
}

/**
 * Show one result with its audio.
 *
 * @param {object} what
 * @param {Blob} what.blob
 * @param {import('./api.js').Audio} what.audio
 * @param {import('./api.js').Result} what.result
 * @param {number | null} what.channel that was scored, null for the mean of all
 * @param {import('./api.js').Stretch | null} what.scored null where everything was
 */
export async function showTracks({ blob, audio, result, channel, scored }) {
  clearTracks();
  const mine = ++turn;
  const { duration } = audio;
  const { frames } = result;
  const canvas = find('waveform', HTMLCanvasElement);
  const waveform = new Waveform(canvas, { buffer: null, channel, duration, scored });
  find('timeline-part', HTMLElement).hidden = !frames;
  find('timeline-ask', HTMLElement).hidden = Boolean(frames);
  const place = find('timeline', HTMLElement);
  place.hidden = !frames;
  const timeline = frames ? new Timeline(place, frames, duration) : null;
  shown = { duration, result, waveform, player: null, timeline };
  if (timeline && frames) {
    timeline.stacked = find('draw-stacked', HTMLInputElement).checked;
    timeline.draw();
    makeReadout(frames);
  }
  tracks.setAttribute('aria-valuemax', duration.toFixed(2));
  draw();
  const decoded = await decodeAudio(blob, audio);
  if (mine !== turn) {
    return;
  }
  const buffer = typeof decoded === 'string' ? null : decoded;
  showNotice(find('player-notice', HTMLElement), typeof decoded === 'string' ? decoded : null);
  setText(find('player-hint', HTMLElement), buffer ? 'player.hint' : 'player.hint.silent');
  waveform.buffer = buffer;
  const player = buffer && new Player(buffer);
  player?.addEventListener('state', follow);
  shown.player = player;
  playButton.disabled = !player;
  find('player', HTMLElement).dataset.ready = 'true';
  if (frames) {
    showSegments(find('segments', HTMLTableSectionElement), segments(frames), player && ((time) => moveTo(time, true)));
  }
  draw();
}

/** Stop playing and forget what is shown. */
export function clearTracks() {
  turn++;
  shown?.player?.pause();
  shown?.timeline?.destroy();
  shown = null;
  position = 0;
  pointed = null;
  playButton.disabled = true;
  delete find('player', HTMLElement).dataset.ready;
  showNotice(find('player-notice', HTMLElement), null);
}

/** What is drawn, for a picture of it. */
export function drawnTracks() {
  return { waveform: shown?.waveform ?? null, timeline: shown?.timeline ?? null };
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (!shown) {
    return;
  }
  const step = Math.max(0.1, shown.duration / 100);
  const targets = /** @type {Record<string, number>} */ ({
    ArrowLeft: position - step,
    ArrowDown: position - step,
    ArrowRight: position + step,
    ArrowUp: position + step,
    Home: 0,
    End: shown.duration,
  });
  if (event.key === ' ' || event.key === 'Enter') {
    toggle();
  } else if (event.key in targets) {
    moveTo(targets[event.key], false);
  } else {
    return;
  }
  event.preventDefault();
}

function toggle() {
  const player = shown?.player;
  if (player?.playing) {
    player.pause();
  } else {
    player?.play(position);
  }
}

/**
 * @param {number} time seconds
 * @param {boolean} play also where it does not play now
 */
function moveTo(time, play) {
  if (!shown) {
    return;
  }
  position = Math.min(Math.max(time, 0), shown.duration);
  if (shown.player && (play || shown.player.playing)) {
    shown.player.play(position);
  }
  draw();
}

/** @param {number | null} time */
function point(time) {
  pointed = time;
  const line = find('pointer-line', HTMLElement);
  line.hidden = time === null;
  place(line, time ?? 0);
  writeReadout();
}

/** Follow the player while it plays. */
function follow() {
  const player = shown?.player;
  if (!player) {
    return;
  }
  setLabel(playButton, player.playing ? 'player.pause' : 'player.play');
  playButton.dataset.playing = String(player.playing);
  position = player.position;
  draw();
  cancelAnimationFrame(frame);
  if (player.playing) {
    frame = requestAnimationFrame(follow);
  }
}

function draw() {
  if (!shown) {
    return;
  }
  shown.waveform.draw(position);
  place(find('playhead', HTMLElement), position);
  find('clock', HTMLElement).textContent = `${clock(position, 1)} / ${clock(shown.duration, 1)}`;
  writeReadout();
  if (!shown.player?.playing) {
    describePosition(shown);
  }
}

/**
 * Tell the position to screen readers; not while playing, which would talk over the sound.
 *
 * @param {Shown} shown
 */
function describePosition(shown) {
  tracks.setAttribute('aria-valuenow', position.toFixed(2));
  const values = { time: position.toFixed(1), duration: shown.duration.toFixed(1) };
  const strongest = shown.result.frames && strongestAt(shown.result.frames, position);
  tracks.setAttribute(
    'aria-valuetext',
    strongest ? message('player.scores', { ...values, ...strongest }) : message('player.position', values),
  );
}

/**
 * @param {import('./api.js').Frames} frames
 * @param {number} time
 */
function strongestAt(frames, time) {
  const row = scoresAt(frames, time);
  if (!row) {
    return null;
  }
  const score = Math.max(...row);
  return { emotion: { emotion: emotionOf(frames.labels[row.indexOf(score)]) }, score: percent(score) };
}

/**
 * @param {HTMLElement} line
 * @param {number} time
 */
function place(line, time) {
  const share = shown ? time / shown.duration : 0;
  line.style.setProperty('left', `${(100 * share).toFixed(3)}%`);
}

/** @param {import('./api.js').Frames} frames */
function makeReadout(frames) {
  const items = columns(frames).map(({ emotion, index }) => {
    const name = make('span');
    setEmotion(name, emotion);
    const swatch = make('span', { class: 'swatch', 'aria-hidden': 'true' });
    swatch.style.setProperty('background', `var(${colourOf(emotion)})`);
    const face = make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotion));
    return make('li', {}, swatch, face, name, make('span', { class: 'value', 'data-column': index }));
  });
  find('readout', HTMLElement).replaceChildren(...items);
  writeReadout();
}

/** Write the scores at the pointer, else at the position, else of the whole clip. */
function writeReadout() {
  const frames = shown?.result.frames;
  if (!shown || !frames) {
    return;
  }
  const time = pointed ?? (position > 0 ? position : null);
  const row = time === null ? shown.result.scores.map(({ score }) => score) : scoresAt(frames, time);
  const heading = find('readout-time', HTMLElement);
  if (time === null) {
    setText(heading, 'timeline.mean');
  } else {
    setText(heading, 'timeline.at', { time: time.toFixed(2) });
  }
  for (const value of find('readout', HTMLElement).querySelectorAll('[data-column]')) {
    value.textContent = row ? percent(row[Number(value.getAttribute('data-column'))]) : '–';
  }
}
