// Settings in the browser's storage. It may be disabled or full; a setting then lasts until the page is closed.

const PREFIX = 'emotion2vec-service.';

/**
 * @param {string} name
 * @param {'localStorage' | 'sessionStorage'} [where]
 * @returns {string | null}
 */
export function readSetting(name, where = 'localStorage') {
  try {
    return window[where].getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/**
 * @param {string} name
 * @param {string} value
 * @param {'localStorage' | 'sessionStorage'} [where]
 */
export function saveSetting(name, value, where = 'localStorage') {
  try {
    window[where].setItem(PREFIX + name, value);
  } catch {
    // the setting is not kept, the page works without
  }
}
