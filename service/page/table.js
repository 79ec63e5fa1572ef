// Several files: one row each, sorted as the person likes, and as CSV.

import { find, make } from './dom.js';
import { emoji, emotionOf } from './emotions.js';
import { milliseconds } from './facts.js';
import { setEmotion, setLabel, setText } from './language.js';
import { problemMessage } from './problems.js';
import { percent } from './segments.js';
import { stateMessage } from './states.js';
import { csvBlob, save } from './takeaway.js';

/** @typedef {import('./jobs.js').Job} Job */

/** What rows are sorted by; jobs without it come last. */
const ORDERS = /** @type {Record<string, (job: Job) => string | number | undefined>} */ ({
  file: (job) => job.name,
  emotion: (job) => strongest(job)?.label,
  score: (job) => strongest(job)?.score,
  duration: (job) => job.answered?.answer.audio.duration,
  time: (job) => (job.stored ? undefined : job.answered && job.wall) ?? undefined,
});

/** @type {{order: string, descending: boolean} | null} null as they came */
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
  for (const heading of document.querySelectorAll('#table th[data-order]')) {
    const order = heading.getAttribute('data-order') ?? '';
    heading.querySelector('button')?.addEventListener('click', () => {
      sorted = { order, descending: sorted?.order === order && !sorted.descending };
      for (const each of document.querySelectorAll('#table th[data-order]')) {
        each.removeAttribute('aria-sort');
      }
      heading.setAttribute('aria-sort', sorted.descending ? 'descending' : 'ascending');
      redraw();
    });
  }
  find('table-csv', HTMLButtonElement).addEventListener('click', () =>
    save('emotions.csv', csvBlob(tableRows(jobs()))),
  );
  find('table-clear', HTMLButtonElement).addEventListener('click', clear);
}

/**
 * Draw all rows.
 *
 * @param {Job[]} jobs
 * @param {Job | null} selected
 * @param {{select: (job: Job) => void, remove: (job: Job) => void}} on
 */
export function showTable(jobs, selected, on) {
  find('table-part', HTMLElement).hidden = jobs.length < 2;
  const done = jobs.filter((job) => !job.active).length;
  setText(find('table-summary', HTMLElement), 'table.summary', { done, all: jobs.length });
  const body = find('rows', HTMLTableSectionElement);
  // Whoever stands on a button of a row stays there.
  const focused = document.activeElement?.closest('#rows tr')?.getAttribute('data-job');
  const which = document.activeElement?.className;
  const rows = inOrder(jobs).map((job) => row(job, job === selected, jobs.indexOf(job), on));
  body.replaceChildren(...rows);
  if (focused !== null && focused !== undefined) {
    const again = body.querySelector(`[data-job="${focused}"] button.${which?.split(' ')[0]}`);
    if (again instanceof HTMLButtonElement) {
      again.focus();
    }
  }
}

/**
 * The table as rows of a CSV: in the order in which the files came.
 *
 * @param {Job[]} jobs
 */
export function tableRows(jobs) {
  const emotions = [
    ...new Set(jobs.flatMap((job) => results(job).flatMap(({ scores }) => scores.map((s) => emotionOf(s.label))))),
  ];
  return [
    ['file', 'channel', 'state', 'code', 'label', 'score', 'seconds', 'milliseconds', ...emotions],
    ...jobs.flatMap((job) => {
      const facts = [job.state, job.state === 'failed' ? (job.problem?.code ?? '') : ''];
      const found = results(job);
      if (!found.length) {
        return [[job.name, '', ...facts, '', '', '', '', ...emotions.map(() => '')]];
      }
      return found.map((result) => {
        const scores = new Map(result.scores.map(({ label, score }) => [emotionOf(label), score]));
        return [
          job.name,
          'channel' in result ? Number(result.channel) : '',
          ...facts,
          result.label,
          result.score,
          job.answered?.answer.audio.duration ?? '',
          job.stored ? '' : Math.round(job.wall),
          ...emotions.map((emotion) => scores.get(emotion) ?? ''),
        ];
      });
    }),
  ];
}

/**
 * The results of a job: of its channels where they were split.
 *
 * @param {Job} job
 * @returns {import('./api.js').Result[]}
 */
function results(job) {
  const answer = job.answered?.answer;
  return answer ? (answer.channels ?? [/** @type {import('./api.js').Result} */ (answer)]) : [];
}

/** @param {Job} job */
function strongest(job) {
  const found = results(job);
  return found.length ? found.reduce((one, other) => (other.score > one.score ? other : one)) : undefined;
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

/**
 * @param {Job} job
 * @param {boolean} selected
 * @param {number} number
 * @param {{select: (job: Job) => void, remove: (job: Job) => void}} on
 */
function row(job, selected, number, on) {
  const open = make('button', { type: 'button', class: 'open', click: () => on.select(job) }, job.name);
  if (selected) {
    open.setAttribute('aria-current', 'true');
  }
  const drop = make('button', { type: 'button', class: 'remove' }, '✕');
  setLabel(drop, job.active ? 'table.cancel' : 'table.remove', { name: job.name });
  drop.addEventListener('click', (event) => {
    event.stopPropagation();
    on.remove(job);
  });
  const element = make(
    'tr',
    { 'data-job': number, class: selected ? 'selected' : false },
    make('th', { scope: 'row' }, open),
    outcome(job),
    make('td', { class: 'number' }, job.answered ? percent(strongest(job)?.score ?? 0) : ''),
    make('td', { class: 'number' }, job.answered ? `${job.answered.answer.audio.duration.toFixed(2)} s` : ''),
    make('td', { class: 'number' }, job.answered && !job.stored ? milliseconds(job.wall) : ''),
    make('td', {}, drop),
  );
  element.addEventListener('click', () => on.select(job));
  return element;
}

/** @param {Job} job */
function outcome(job) {
  const best = strongest(job);
  if (job.state === 'done' && best) {
    const name = make('span');
    setEmotion(name, emotionOf(best.label));
    const face = make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotionOf(best.label)));
    const cell = make('td', {}, face, ' ', name);
    if (job.stored) {
      cell.append(' ', make('span', { class: 'badge', text: 'result.stored' }));
    }
    return cell;
  }
  const { key, values } = job.state === 'failed' && job.problem ? problemMessage(job.problem) : stateMessage(job);
  return make('td', { class: job.state, text: key, values });
}
