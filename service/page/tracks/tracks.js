// The tracks of the shown audio (waveform, timeline, segments) with one common position: pointer, keyboard, playback.

import { find, showNotice } from '../common/dom.js';
import { clock } from '../common/format.js';
import { onThemeChange } from '../common/theme.js';
import { message, onLanguageChange, setLabel, setText } from '../i18n/language.js';
import { emotionIntervals, showIntervalTable } from './interval-table.js';
import { keyTarget } from './keyboard.js';
import { openAudio } from './player.js';
import { createScoreList, FrameScores, SegmentScores, strongestOf, updateScoreList } from './position-scores.js';
import { SegmentLanes, segmentsInOrder } from './segment-lanes.js';
import { highlightSegment, showSegments } from './segment-table.js';
import { Timeline } from './timeline.js';
import { Waveform } from './waveform.js';
import { keepVisible, resetZoom, startZoom } from './zoom.js';

const tracks = find('tracks', HTMLElement);
const playButton = find('play', HTMLButtonElement);
/** Pixels by which the pointer may be outside a segment. */
const POINTER_TOLERANCE = 4;

/**
 * @typedef {object} Shown
 * @property {number} duration seconds
 * @property {Waveform} waveform
 * @property {import('./player.js').OpenedAudio['player']} player null if the browser cannot play the file
 * @property {Timeline | null} timeline null without scores over time
 * @property {SegmentLanes | null} lanes null without segments
 * @property {number} mainLane the lane for positions that are not in a lane
 * @property {FrameScores | SegmentScores | null} scoreSource null without scores over time and segments
 */

/** @type {Shown | null} */
let shown = null;
/** Position in seconds. */
let position = 0;
/** @type {import('./position-scores.js').TrackPosition | null} position of the pointer, or of the table row with the focus */
let pointed = null;
/** The pending animation frame while playing. */
let frame = 0;
/** Changes with each result shown, so that audio decoded for an earlier one is discarded. */
let generation = 0;

/** Connect pointer, keyboard and buttons, once. */
export function startTracks() {
  tracks.addEventListener('pointermove', (event) => point(pointerPosition(event)));
  tracks.addEventListener('pointerleave', () => point(null));
  tracks.addEventListener('click', (event) => moveTo(pointerPosition(event).time, true));
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
  const redraw = () => {
    shown?.lanes?.draw();
    draw();
  };
  new ResizeObserver(() => {
    shown?.timeline?.resize();
    redraw();
  }).observe(tracks);
  onThemeChange(() => {
    shown?.timeline?.draw();
    redraw();
  });
  onLanguageChange(redraw);
}

/**
 * Show one result with its audio.
 *
 * @param {object} what
 * @param {Blob} what.blob
 * @param {import('../api/http-api.js').Audio} what.audio
 * @param {import('../api/http-api.js').Result} what.result
 * @param {number | null} what.channel that was scored, null for the mean of all
 * @param {import('../api/http-api.js').Interval | null} what.scored null if everything was
 * @param {import('./segment-lanes.js').Lane[] | null} what.lanes of all channels
 */
export async function showTracks({ blob, audio, result, channel, scored, lanes }) {
  clearTracks();
  const mine = ++generation;
  const { duration } = audio;
  const { frames } = result;
  const canvas = find('waveform', HTMLCanvasElement);
  canvas.classList.toggle('axis-only', lanes !== null); // until the audio is decoded
  const waveform = new Waveform(canvas, { channel, duration, scored });
  const timeline = frames ? new Timeline(find('timeline', HTMLElement), frames, duration) : null;
  const drawn = lanes && new SegmentLanes(find('lanes', HTMLCanvasElement), lanes, duration);
  const scoreSource = lanes ? new SegmentScores(result.scores, lanes) : frames ? new FrameScores(result, frames) : null;
  const mainLane = Math.max(0, lanes?.findIndex((lane) => lane.channel === channel) ?? 0);
  shown = { duration, waveform, player: null, timeline, lanes: drawn, mainLane, scoreSource };
  resetZoom(duration);
  setUp(shown);
  if (timeline) {
    timeline.stacked = find('draw-stacked', HTMLInputElement).checked;
    timeline.draw();
  }
  draw();
  const { buffer, player, notice } = await openAudio(blob, audio);
  if (mine !== generation) {
    player?.close();
    return;
  }
  showNotice(find('player-notice', HTMLElement), notice);
  setText(find('player-hint', HTMLElement), player ? 'player.hint' : 'player.hint.silent');
  if (buffer) {
    waveform.setAudio(buffer);
  }
  canvas.classList.toggle('axis-only', !buffer && lanes !== null);
  player?.addEventListener('state', followPlayer);
  shown.player = player;
  playButton.disabled = !player;
  find('segments-table', HTMLElement).classList.toggle('silent', !player);
  find('player', HTMLElement).dataset.ready = 'true';
  if (frames) {
    const play = (/** @type {number} */ time) => moveTo(time, true);
    showIntervalTable(find('emotion-intervals', HTMLTableSectionElement), emotionIntervals(frames), player && play);
  }
  draw();
}

/**
 * Show the segments received so far.
 *
 * @param {import('./segment-lanes.js').Lane[]} lanes
 * @param {number} duration seconds, as far as known
 */
export function showPartialTracks(lanes, duration) {
  generation++;
  const canvas = find('waveform', HTMLCanvasElement);
  canvas.classList.add('axis-only');
  const waveform = new Waveform(canvas, { channel: null, duration, scored: null });
  const drawn = new SegmentLanes(find('lanes', HTMLCanvasElement), lanes, duration);
  const scoreSource = new SegmentScores([], lanes);
  shown = { duration, waveform, player: null, timeline: null, lanes: drawn, mainLane: 0, scoreSource };
  find('segments-table', HTMLElement).classList.add('silent');
  setText(find('player-hint', HTMLElement), 'player.hint.silent');
  setUp(shown);
  draw();
}

/** Stop playing and clear the tracks. */
export function clearTracks() {
  generation++;
  shown?.player?.close();
  shown?.timeline?.destroy();
  shown = null;
  position = 0;
  pointed = null;
  playButton.disabled = true;
  setLabel(playButton, 'player.play'); // a media element fires its last event after its listener is removed
  playButton.dataset.playing = 'false';
  delete find('player', HTMLElement).dataset.ready;
  showNotice(find('player-notice', HTMLElement), null);
}

/** The drawn tracks, for the chart image. */
export function drawnTracks() {
  return { waveform: shown?.waveform ?? null, timeline: shown?.timeline ?? null, lanes: shown?.lanes ?? null };
}

/**
 * Show the tracks and tables for which there is data.
 *
 * @param {Shown} what
 */
function setUp({ duration, timeline, lanes, scoreSource }) {
  for (const [id, there] of /** @type {[string, boolean][]} */ ([
    ['timeline', timeline !== null],
    ['timeline-tools', timeline !== null],
    ['timeline-hint', scoreSource === null],
    ['lanes', lanes !== null],
    ['segments-part', lanes !== null],
    ['position-scores-part', scoreSource !== null],
  ])) {
    find(id, HTMLElement).hidden = !there;
  }
  setText(find('player-keys', HTMLElement), lanes ? 'player.keys.segments' : 'player.keys');
  if (scoreSource) {
    createScoreList(scoreSource.emotions);
  }
  if (lanes) {
    lanes.draw();
    showSegments(segmentsInOrder(lanes.lanes), { play: ({ start }) => moveTo(start, true), point: pointAtSegment });
  }
  tracks.setAttribute('aria-valuemax', duration.toFixed(2));
}

/**
 * The position under the pointer.
 *
 * @param {MouseEvent} event
 * @returns {import('./position-scores.js').TrackPosition}
 */
function pointerPosition(event) {
  const { left, width } = tracks.getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
  const { duration = 0, lanes = null, mainLane = 0 } = shown ?? {};
  const y = lanes ? event.clientY - lanes.canvas.getBoundingClientRect().top : -1;
  const lane = lanes && y >= 0 ? lanes.laneAt(y) : mainLane;
  return { time: share * duration, lane, tolerance: (POINTER_TOLERANCE * duration) / width };
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (!shown) {
    return;
  }
  const { duration, lanes, mainLane } = shown;
  const starts = lanes ? lanes.lanes[mainLane].segments.map(({ start }) => start) : null;
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
 * Move the position.
 *
 * @param {number} time seconds
 * @param {boolean} play whether to start playing
 */
function moveTo(time, play) {
  if (!shown) {
    return;
  }
  position = Math.min(Math.max(time, 0), shown.duration);
  keepVisible(position / shown.duration);
  if (shown.player && (play || shown.player.playing)) {
    shown.player.play(position);
  }
  draw();
}

/** @param {import('./position-scores.js').TrackPosition | null} moment */
function point(moment) {
  pointed = moment;
  const line = find('pointer-line', HTMLElement);
  line.hidden = moment === null;
  place(line, moment?.time ?? 0);
  showPositionScores();
}

/** @param {import('../api/http-api.js').Segment | null} segment */
function pointAtSegment(segment) {
  const lane = shown?.lanes?.lanes.findIndex(({ channel }) => channel === (segment?.channel ?? null)) ?? -1;
  point(segment && lane >= 0 ? { time: (segment.start + segment.end) / 2, lane } : null);
}

/** Take over the player's position, in each frame while it plays. */
function followPlayer() {
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
    keepVisible(position / shown.duration);
    frame = requestAnimationFrame(followPlayer);
  }
}

function draw() {
  if (!shown) {
    return;
  }
  shown.waveform.draw(position);
  place(find('playhead', HTMLElement), position);
  find('clock', HTMLElement).textContent = `${clock(position, 1)} / ${clock(shown.duration, 1)}`;
  showPositionScores();
  if (!shown.player?.playing) {
    describePosition(shown);
  }
}

/**
 * Describe the position to screen readers. This is not called while playing: speech would cover the audio.
 *
 * @param {Shown} shown
 */
function describePosition({ duration, scoreSource, mainLane }) {
  tracks.setAttribute('aria-valuenow', position.toFixed(2));
  const values = { time: position.toFixed(1), duration: duration.toFixed(1) };
  const strongest = scoreSource && strongestOf(scoreSource.at({ time: position, lane: mainLane }));
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

/** Show the scores at the pointer, otherwise at the position, otherwise of the whole audio. */
function showPositionScores() {
  if (!shown?.scoreSource) {
    return;
  }
  const { scoreSource, lanes, mainLane, player } = shown;
  const positionScores = scoreSource.at(pointed ?? (position > 0 ? { time: position, lane: mainLane } : null));
  updateScoreList(positionScores);
  if (lanes && lanes.highlighted !== positionScores.segment) {
    lanes.highlighted = positionScores.segment;
    lanes.draw();
  }
  highlightSegment(positionScores.segment, pointed === null && player?.playing === true);
}
