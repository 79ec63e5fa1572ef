// The table of files: sortable, with a CSV download.

import { download, find, make } from '../common/dom.js';
import { emojiElement, emotionElement } from '../common/emotion-scores.js';
import { emotionOf, scoresByEmotion } from '../common/emotions.js';
import { durationText, milliseconds, percent } from '../common/format.js';
import { csvBlob } from '../export/csv.js';
import { setLabel, setText } from '../i18n/language.js';
import { problemMessage } from '../i18n/problem-text.js';
import { stateMessage } from './job-state.js';

/** @typedef {import('../jobs.js').Job} Job */

/** Sort keys by column; jobs without a value come last. */
const ORDERS = /** @type {Record<string, (job: Job) => string | number | undefined>} */ ({
  file: (job) => job.name,
  emotion: (job) => strongest(job)?.label,
  score: (job) => strongest(job)?.score,
  duration: (job) => job.answered?.answer.audio.duration,
  time: (job) => (job.answered && !job.stored ? job.roundTrip : undefined),
});

/** @type {WeakMap<Job, Row>} */
const rows = new WeakMap();

/** @type {{order: string, descending: boolean} | null} null: in the order in which they were added */
let sorted = null;

/**
 * Connect headings and buttons, once.
 *
 * @param {object} on
 * @param {() => Job[]} on.jobs
 * @param {() => void} on.redraw
 * @param {() => void} on.clear
 */
export function startTable({ jobs, redraw, clear }) {
  for (const heading of document.querySelectorAll('#file-table th[data-order]')) {
    const order = heading.getAttribute('data-order') ?? '';
    heading.querySelector('button')?.addEventListener('click', () => {
      sorted = { order, descending: sorted?.order === order && !sorted.descending };
      for (const each of document.querySelectorAll('#file-table th[data-order]')) {
        each.removeAttribute('aria-sort');
      }
      heading.setAttribute('aria-sort', sorted.descending ? 'descending' : 'ascending');
      redraw();
    });
  }
  find('table-csv', HTMLButtonElement).addEventListener('click', () =>
    download('emotions.csv', csvBlob(tableRows(jobs()))),
  );
  find('table-clear', HTMLButtonElement).addEventListener('click', () => {
    find('choose', HTMLButtonElement).focus();
    clear();
  });
}

/**
 * Update the table. Existing rows keep their elements, so that neither the focus nor a click in progress is lost.
 *
 * @param {Job[]} jobs
 * @param {Job | null} selected
 * @param {{select: (job: Job) => void, remove: (job: Job) => void}} on
 */
export function showTable(jobs, selected, on) {
  find('table-part', HTMLElement).hidden = jobs.length < 2;
  const done = jobs.filter((job) => !job.active).length;
  setText(find('table-summary', HTMLElement), 'table.summary', { done, all: jobs.length });
  const body = find('file-rows', HTMLTableSectionElement);
  const wanted = inOrder(jobs).map((job) => {
    let row = rows.get(job);
    if (!row) {
      row = new Row(job, on);
      rows.set(job, row);
    }
    row.update(job === selected);
    return row.element;
  });
  for (const element of [...body.children]) {
    if (!wanted.includes(/** @type {HTMLTableRowElement} */ (element))) {
      element.remove();
    }
  }
  wanted.forEach((element, index) => {
    if (body.children[index] !== element) {
      body.insertBefore(element, body.children[index] ?? null);
    }
  });
}

/**
 * The table as rows of a CSV file, in the order in which the files were added.
 *
 * @param {Job[]} jobs
 */
function tableRows(jobs) {
  const emotions = [
    ...new Set(jobs.flatMap((job) => results(job).flatMap(({ scores }) => scores.map((s) => emotionOf(s.label))))),
  ];
  return [
    ['file', 'channel', 'state', 'code', 'label', 'score', 'seconds', 'milliseconds', ...emotions],
    ...jobs.flatMap((job) => {
      const state = [job.state, job.state === 'failed' ? (job.problem?.code ?? '') : ''];
      const found = results(job);
      if (!found.length) {
        return [[job.name, '', ...state, '', '', '', '', ...emotions.map(() => '')]];
      }
      return found.map((result) => {
        const scores = scoresByEmotion(result.scores);
        return [
          job.name,
          'channel' in result ? Number(result.channel) : '',
          ...state,
          result.label ?? '',
          result.score ?? '',
          job.answered?.answer.audio.duration ?? '',
          job.stored ? '' : Math.round(job.roundTrip),
          ...emotions.map((emotion) => scores.get(emotion) ?? ''),
        ];
      });
    }),
  ];
}

/**
 * The results of a job: one for each channel where channels were split.
 *
 * @param {Job} job
 * @returns {import('../api/http-api.js').Result[]}
 */
function results(job) {
  const answer = job.answered?.answer;
  return answer ? (answer.channels ?? [/** @type {import('../api/http-api.js').Result} */ (answer)]) : [];
}

/**
 * The strongest emotion of all channels, undefined without speech.
 *
 * @param {Job} job
 */
function strongest(job) {
  /** @type {{label: string, score: number} | undefined} */
  let best;
  for (const { label, score } of results(job)) {
    if (label !== null && score !== null && score > (best?.score ?? -1)) {
      best = { label, score };
    }
  }
  return best;
}

/** @param {Job[]} jobs */
function inOrder(jobs) {
  if (!sorted) {
    return jobs;
  }
  const { order, descending } = sorted;
  const sign = descending ? -1 : 1;
  return jobs.toSorted((one, other) => {
    const [a, b] = [ORDERS[order](one), ORDERS[order](other)];
    if (a === undefined || b === undefined) {
      return Number(a === undefined) - Number(b === undefined);
    }
    return sign * (typeof a === 'string' ? a.localeCompare(String(b)) : a - Number(b));
  });
}

/** The row of one job. */
class Row {
  /**
   * @param {Job} job
   * @param {{select: (job: Job) => void, remove: (job: Job) => void}} on
   */
  constructor(job, on) {
    this.job = job;
    /** The state that is drawn, as JSON. */
    this.drawn = '';
    this.open = make('button', { type: 'button', class: 'open' }, job.name);
    this.remove = make('button', { type: 'button', class: 'remove' }, '✕');
    this.element = make('tr', {}, make('th', { scope: 'row' }, this.open), make('td', {}, this.remove));
    this.element.addEventListener('click', (event) => {
      if (event.target === this.remove) {
        if (!job.active) {
          this.#moveFocus();
        }
        on.remove(job);
      } else {
        on.select(job);
      }
    });
  }

  /** Move the focus to another row before this one is removed. */
  #moveFocus() {
    const { nextElementSibling, previousElementSibling, parentElement } = this.element;
    const next = (nextElementSibling ?? previousElementSibling)?.querySelector('.open');
    const last = (parentElement?.childElementCount ?? 0) <= 2; // the table is hidden for a single file
    (last || !(next instanceof HTMLElement) ? find('choose', HTMLButtonElement) : next).focus({ preventScroll: true });
  }

  /** @param {boolean} selected */
  update(selected) {
    const { job } = this;
    this.element.classList.toggle('selected', selected);
    if (selected) {
      this.open.setAttribute('aria-current', 'true');
    } else {
      this.open.removeAttribute('aria-current');
    }
    const state = JSON.stringify([
      job.state,
      job.uploaded,
      job.ahead,
      job.segments.length,
      job.retryIn,
      job.stored,
      job.roundTrip,
    ]);
    if (state === this.drawn) {
      return;
    }
    this.drawn = state;
    setLabel(this.remove, job.active ? 'table.cancel' : 'table.remove', { name: job.name });
    const done = job.state === 'done' ? job.answered : null;
    const best = done ? strongest(job) : undefined;
    for (const cell of [...this.element.children].slice(1, -1)) {
      cell.remove();
    }
    this.element.lastElementChild?.before(
      resultCell(job),
      make('td', { class: 'number' }, best ? percent(best.score) : ''),
      make('td', { class: 'number' }, done ? durationText(done.answer.audio.duration) : ''),
      make('td', { class: 'number' }, done && !job.stored ? milliseconds(job.roundTrip) : ''),
    );
  }
}

/**
 * The cell with the emotion, or the state of a job without an answer.
 *
 * @param {Job} job
 */
function resultCell(job) {
  const best = strongest(job);
  if (job.state === 'done' && best) {
    const emotion = emotionOf(best.label);
    const cell = make('td', {}, emojiElement(emotion), ' ', emotionElement(emotion));
    if (job.stored) {
      cell.append(' ', make('span', { class: 'badge', text: 'result.stored' }));
    }
    return cell;
  }
  if (job.state === 'done') {
    return make('td', { text: 'result.no_speech' });
  }
  const { key, values } = job.state === 'failed' && job.problem ? problemMessage(job.problem) : stateMessage(job);
  return make('td', { class: job.state, text: key, values });
}
