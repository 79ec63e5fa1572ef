// The form of recognition options, as names and values of the API. Values that are the API's defaults are omitted.

import { find } from '../common/dom.js';

const form = find('options', HTMLFormElement);

/**
 * Connect the form.
 *
 * @param {() => void} onChange called after each change
 */
export function startOptionsForm(onChange) {
  const update = () => {
    const granularity = value('granularity');
    find('frame-options', HTMLElement).hidden = granularity !== 'frame';
    find('segments-hint', HTMLElement).hidden = granularity !== 'segment';
    find('channel-option', HTMLElement).hidden = value('channels') !== 'one';
    const embedding = /** @type {HTMLSelectElement} */ (form.elements.namedItem('embedding'));
    const frameEmbeddings = /** @type {HTMLOptionElement} */ (embedding.querySelector('[value=frame]'));
    frameEmbeddings.disabled = granularity === 'segment'; // the API returns one embedding for each segment, none for frames
    if (frameEmbeddings.disabled && frameEmbeddings.selected) {
      embedding.value = 'utterance';
    }
    onChange();
  };
  form.addEventListener('input', update);
  form.addEventListener('submit', (event) => event.preventDefault());
  update();
}

/**
 * The chosen options.
 *
 * @returns {import('../api/http-api.js').Options}
 */
export function chosenOptions() {
  /** @type {import('../api/http-api.js').Options} */
  const options = [];
  const granularity = value('granularity');
  if (granularity !== 'utterance') {
    options.push(['granularity', granularity]);
  }
  if (granularity === 'frame') {
    for (const name of ['window', 'hop']) {
      if (value(name)) {
        options.push([name, value(name)]);
      }
    }
  }
  if (value('embedding') !== 'none') {
    options.push(['embedding', value('embedding')]);
  }
  if (value('embedding') === 'frame' || (value('embedding') === 'utterance' && granularity === 'segment')) {
    options.push(['encoding', 'base64']); // as JSON numbers, some minutes would take hundreds of megabytes
  }
  const channels = value('channels') === 'one' ? value('channel') || '0' : value('channels');
  if (channels !== 'mix') {
    options.push(['channels', channels]);
  }
  if (value('label_language') !== 'en') {
    options.push(['label_language', value('label_language')]);
  }
  if (!find('trim', HTMLInputElement).checked) {
    options.push(['trim', 'false']);
  }
  return options;
}

/** Choose segments in the form. */
export function chooseSegments() {
  const choice = /** @type {RadioNodeList} */ (form.elements.namedItem('granularity'));
  choice.value = 'segment';
  form.dispatchEvent(new Event('input'));
}

/**
 * Whether two sets of options are equal.
 *
 * @param {import('../api/http-api.js').Options} one
 * @param {import('../api/http-api.js').Options} other
 */
export function sameOptions(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** @param {string} name */
function value(name) {
  return String(new FormData(form).get(name) ?? '');
}
