// Waveform, timeline and segments under one another, with one position for all: pointing, playing, keys.

import { find } from './dom.js';
import { clock } from './format.js';
import { Lanes } from './lanes.js';
import { followLanguage, message, setLabel, setText } from './language.js';
import { openSound } from './player.js';
import { FrameReadings, makeReadout, SegmentReadings, strongestIn, writeReadout } from './readout.js';
import { markSegment, showSegments } from './segments.js';
import { showNotice } from './sentences.js';
import { showStretches, stretches } from './stretches.js';
import { followTheme } from './theme.js';
import { Timeline } from './timeline.js';
import { keyTarget } from './track-keys.js';
import { Waveform } from './waveform.js';
import { keepInSight, resetZoom, startZoom } from './zoom.js';

const tracks = find('tracks', HTMLElement);
const playButton = find('play', HTMLButtonElement);
/** Pixels by which a segment may be missed. */
const SLACK = 4;

/**
 * @typedef {object} Shown
 * @property {number} duration seconds
 * @property {Waveform} waveform
 * @property {import('./player.js').Sound['player']} player null where the browser cannot play the file
 * @property {Timeline | null} timeline null without scores over time
 * @property {Lanes | null} lanes null without segments
 * @property {number} main the lane that is read where nothing points at one
 * @property {FrameReadings | SegmentReadings | null} readings null where there is nothing to read
 */

/** @type {Shown | null} */
let shown = null;
/** Seconds at which the position stands. */
let position = 0;
/** @type {import('./readout.js').Moment | null} where the pointer is, or a row of the table that has the focus */
let pointed = null;
/** The next step of following the player. */
let frame = 0;
/** Counts what was shown, so that decoding that comes late is known as such. */
let turn = 0;

/** Connect pointer, keys and buttons, once. */
export function startTracks() {
  tracks.addEventListener('pointermove', (event) => point(momentOf(event)));
  tracks.addEventListener('pointerleave', () => point(null));
  tracks.addEventListener('click', (event) => moveTo(momentOf(event).time, true));
  tracks.addEventListener('keydown', onKey);
  playButton.addEventListener('click', toggle);
  startZoom();
  for (const id of ['draw-stacked', 'draw-lines']) {
    find(id, HTMLInputElement).addEventListener('change', () => {
      if (shown?.timeline) {
        shown.timeline.stacked = find('draw-stacked', HTMLInputElement).checked;
        shown.timeline.draw();
      }
    });
  }
  const drawAnew = () => {
    shown?.lanes?.draw();
    draw();
  };
  new ResizeObserver(() => {
    shown?.timeline?.resize();
    drawAnew();
  }).observe(tracks);
  followTheme(() => {
    shown?.timeline?.draw();
    drawAnew();
  });
  followLanguage(drawAnew);
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
 * @param {import('./lanes.js').Lane[] | null} what.lanes of all channels
 */
export async function showTracks({ blob, audio, result, channel, scored, lanes }) {
  clearTracks();
  const mine = ++turn;
  const { duration } = audio;
  const { frames } = result;
  const canvas = find('waveform', HTMLCanvasElement);
  canvas.classList.toggle('axis-only', lanes !== null); // until there is something to draw
  const waveform = new Waveform(canvas, { channel, duration, scored });
  const timeline = frames ? new Timeline(find('timeline', HTMLElement), frames, duration) : null;
  const drawn = lanes && new Lanes(find('lanes', HTMLCanvasElement), lanes, duration);
  const readings = lanes
    ? new SegmentReadings(result.scores, lanes)
    : frames
      ? new FrameReadings(result, frames)
      : null;
  const main = Math.max(0, lanes?.findIndex((lane) => lane.channel === channel) ?? 0);
  shown = { duration, waveform, player: null, timeline, lanes: drawn, main, readings };
  resetZoom(duration);
  setUp(shown);
  if (timeline) {
    timeline.stacked = find('draw-stacked', HTMLInputElement).checked;
    timeline.draw();
  }
  draw();
  const { buffer, player, notice } = await openSound(blob, audio);
  if (mine !== turn) {
    player?.close();
    return;
  }
  showNotice(find('player-notice', HTMLElement), notice);
  setText(find('player-hint', HTMLElement), player ? 'player.hint' : 'player.hint.silent');
  if (buffer) {
    waveform.hear(buffer);
  }
  canvas.classList.toggle('axis-only', !buffer && lanes !== null);
  player?.addEventListener('state', follow);
  shown.player = player;
  playButton.disabled = !player;
  find('segments-table', HTMLElement).classList.toggle('silent', !player);
  find('player', HTMLElement).dataset.ready = 'true';
  if (frames) {
    const play = (/** @type {number} */ time) => moveTo(time, true);
    showStretches(find('stretches', HTMLTableSectionElement), stretches(frames), player && play);
  }
  draw();
}

/**
 * Show segments of which more are to come.
 *
 * @param {import('./lanes.js').Lane[]} lanes
 * @param {number} duration seconds, as far as it is known
 */
export function growTracks(lanes, duration) {
  turn++;
  const canvas = find('waveform', HTMLCanvasElement);
  canvas.classList.add('axis-only');
  const waveform = new Waveform(canvas, { channel: null, duration, scored: null });
  const drawn = new Lanes(find('lanes', HTMLCanvasElement), lanes, duration);
  const readings = new SegmentReadings([], lanes);
  shown = { duration, waveform, player: null, timeline: null, lanes: drawn, main: 0, readings };
  find('segments-table', HTMLElement).classList.add('silent');
  setText(find('player-hint', HTMLElement), 'player.hint.silent');
  setUp(shown);
  draw();
}

/** Stop playing and forget what is shown. */
export function clearTracks() {
  turn++;
  shown?.player?.close();
  shown?.timeline?.destroy();
  shown = null;
  position = 0;
  pointed = null;
  playButton.disabled = true;
  setLabel(playButton, 'player.play'); // a media element tells of its end only when nobody listens any more
  playButton.dataset.playing = 'false';
  delete find('player', HTMLElement).dataset.ready;
  showNotice(find('player-notice', HTMLElement), null);
}

/** What is drawn, for a picture of it. */
export function drawnTracks() {
  return { waveform: shown?.waveform ?? null, timeline: shown?.timeline ?? null, lanes: shown?.lanes ?? null };
}

/**
 * Show the parts that there is something for.
 *
 * @param {Shown} what
 */
function setUp({ duration, timeline, lanes, readings }) {
  for (const [id, there] of /** @type {[string, boolean][]} */ ([
    ['timeline', timeline !== null],
    ['timeline-tools', timeline !== null],
    ['timeline-ask', readings === null],
    ['lanes', lanes !== null],
    ['segments-part', lanes !== null],
    ['readout-part', readings !== null],
  ])) {
    find(id, HTMLElement).hidden = !there;
  }
  setText(find('player-keys', HTMLElement), lanes ? 'player.keys.segments' : 'player.keys');
  if (readings) {
    makeReadout(readings.emotions);
  }
  if (lanes) {
    lanes.draw();
    const all = lanes.lanes.flatMap(({ segments }) => segments).toSorted((one, other) => one.end - other.end);
    showSegments(all, { play: ({ start }) => moveTo(start, true), point: pointAtSegment });
  }
  tracks.setAttribute('aria-valuemax', duration.toFixed(2));
}

/**
 * @param {MouseEvent} event
 * @returns {import('./readout.js').Moment}
 */
function momentOf(event) {
  const { left, width } = tracks.getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
  const { duration = 0, lanes = null, main = 0 } = shown ?? {};
  const y = lanes ? event.clientY - lanes.canvas.getBoundingClientRect().top : -1;
  const lane = lanes && y >= 0 ? lanes.laneAt(y) : main;
  return { time: share * duration, lane, slack: (SLACK * duration) / width };
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (!shown) {
    return;
  }
  const { duration, lanes, main } = shown;
  const starts = lanes ? lanes.lanes[main].segments.map(({ start }) => start) : null;
  const target = keyTarget(event.key, { position, duration, starts });
  if (event.key === ' ' || event.key === 'Enter') {
    toggle();
  } else if (target !== null) {
    moveTo(target, false);
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
  keepInSight(position / shown.duration);
  if (shown.player && (play || shown.player.playing)) {
    shown.player.play(position);
  }
  draw();
}

/** @param {import('./readout.js').Moment | null} moment */
function point(moment) {
  pointed = moment;
  const line = find('pointer-line', HTMLElement);
  line.hidden = moment === null;
  place(line, moment?.time ?? 0);
  read();
}

/** @param {import('./api.js').Segment | null} segment */
function pointAtSegment(segment) {
  const lane = shown?.lanes?.lanes.findIndex(({ channel }) => channel === (segment?.channel ?? null)) ?? -1;
  point(segment && lane >= 0 ? { time: (segment.start + segment.end) / 2, lane } : null);
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
  if (player.playing && shown) {
    keepInSight(position / shown.duration);
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
  read();
  if (!shown.player?.playing) {
    describePosition(shown);
  }
}

/**
 * Tell the position to screen readers; not while playing, which would talk over the sound.
 *
 * @param {Shown} shown
 */
function describePosition({ duration, readings, main }) {
  tracks.setAttribute('aria-valuenow', position.toFixed(2));
  const values = { time: position.toFixed(1), duration: duration.toFixed(1) };
  const strongest = readings && strongestIn(readings.at({ time: position, lane: main }));
  tracks.setAttribute(
    'aria-valuetext',
    strongest ? message('player.scores', { ...values, ...strongest }) : message('player.position', values),
  );
}

/**
 * @param {HTMLElement} line
 * @param {number} time
 */
function place(line, time) {
  const share = shown ? time / shown.duration : 0;
  line.style.setProperty('left', `${(100 * share).toFixed(3)}%`);
}

/** Write the scores at the pointer, else at the position, else of everything. */
function read() {
  if (!shown?.readings) {
    return;
  }
  const { readings, lanes, main, player } = shown;
  const reading = readings.at(pointed ?? (position > 0 ? { time: position, lane: main } : null));
  writeReadout(reading);
  if (lanes && lanes.marked !== reading.segment) {
    lanes.marked = reading.segment;
    lanes.draw();
  }
  markSegment(reading.segment, pointed === null && player?.playing === true);
}
