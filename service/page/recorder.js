// Recording with the microphone: a level meter, the time, and why it does not work where it does not.

import { find } from './dom.js';
import { clock } from './format.js';
import { message } from './language.js';
import { closeMicrophone, explainMicrophone, microphoneImpossible, openMicrophone, showLevel } from './microphone.js';
import { showNotice } from './sentences.js';

/** Seconds after which a recording ends by itself; the service takes five minutes unless it is told otherwise. */
const LONGEST = 300;

const EXTENSIONS = /** @type {Record<string, string>} */ ({
  'audio/webm': 'webm',
  'audio/ogg': 'ogg',
  'audio/mp4': 'm4a',
});

/** @param {(file: File) => void} take called with each recording */
export function startRecorder(take) {
  const start = find('record', HTMLButtonElement);
  const ways = find('ways', HTMLElement);
  const panel = find('recorder', HTMLElement);
  const stop = find('record-stop', HTMLButtonElement);
  const discard = find('record-discard', HTMLButtonElement);
  const notice = find('record-notice', HTMLElement);

  start.addEventListener('click', async () => {
    const reason = microphoneImpossible() ?? ('MediaRecorder' in window ? null : 'record.unsupported');
    showNotice(notice, reason ?? 'record.asking', { origin: location.origin });
    if (reason) {
      return;
    }
    start.disabled = true;
    let file = null;
    try {
      const stream = await openMicrophone();
      showNotice(notice, null);
      panel.hidden = false;
      ways.hidden = true;
      stop.focus();
      file = await record(stream, stop, discard);
      if (file?.size === 0) {
        file = null;
        showNotice(notice, 'record.empty');
      }
    } catch (error) {
      showNotice(notice, explainMicrophone(error));
    }
    panel.hidden = true;
    ways.hidden = start.disabled = false;
    start.focus();
    if (file) {
      take(file);
    }
  });
}

/**
 * Record until the person stops or the longest time is over.
 *
 * @param {MediaStream} stream is released in the end
 * @param {HTMLButtonElement} stop
 * @param {HTMLButtonElement} discard
 * @returns {Promise<File | null>} null where it was discarded
 */
async function record(stream, stop, discard) {
  let stopMeter = () => {};
  try {
    const recorder = new MediaRecorder(stream);
    const end = () => recorder.state === 'recording' && recorder.stop();
    const ended = new Promise((resolve, reject) => {
      recorder.addEventListener('stop', () => resolve(true));
      recorder.addEventListener('error', reject);
      stop.onclick = end;
      discard.onclick = () => resolve(false);
    });
    /** @type {Blob[]} */
    const pieces = [];
    recorder.addEventListener('dataavailable', (event) => pieces.push(event.data));
    recorder.start();
    stopMeter = follow(stream, end);
    const kept = await ended;
    const type = recorder.mimeType.split(';')[0];
    return kept ? new File(pieces, `${recordingName()}.${EXTENSIONS[type] ?? 'webm'}`, { type }) : null;
  } finally {
    stopMeter();
    closeMicrophone(stream);
  }
}

function recordingName() {
  const now = new Date();
  const parts = [now.getHours(), now.getMinutes(), now.getSeconds()].map((part) => String(part).padStart(2, '0'));
  return message('record.name', { time: parts.join('-') });
}

/**
 * Show level and time of a stream.
 *
 * @param {MediaStream} stream
 * @param {() => void} over called when the longest time is over
 * @returns {() => void} stops it
 */
function follow(stream, over) {
  const time = find('record-time', HTMLElement);
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 2048 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const began = performance.now();
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    showLevel('record-level', samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
    const seconds = (performance.now() - began) / 1000;
    time.textContent = clock(seconds, 1);
    if (seconds >= LONGEST) {
      over();
    }
  }, 50);
  return () => {
    clearInterval(timer);
    context.close();
    showLevel('record-level', null);
    time.textContent = clock(0, 1);
  };
}
