// How each emotion is called, drawn and coloured. Its key is the English label, whatever language an answer is in.

/** @typedef {{en: string, zh: string, native: string}} Label */

const EMOJI = /** @type {Record<string, string>} */ ({
  angry: '😠',
  disgusted: '🤢',
  fearful: '😨',
  happy: '😊',
  neutral: '😐',
  other: '🤔',
  sad: '😢',
  surprised: '😲',
  unknown: '❔',
});

/** @type {Map<string, Label>} */
const labels = new Map(
  [
    ['angry', '生气'],
    ['disgusted', '厌恶'],
    ['fearful', '恐惧'],
    ['happy', '开心'],
    ['neutral', '中立'],
    ['other', '其他'],
    ['sad', '难过'],
    ['surprised', '吃惊'],
    ['unknown', '未知'],
  ].map(([en, zh]) => [en, { en, zh, native: `${zh}/${en}` }]),
);

/**
 * Learn the labels of the model that answers.
 *
 * @param {Label[]} ofModel
 */
export function learnLabels(ofModel) {
  for (const label of ofModel) {
    labels.set(label.en, label);
  }
}

/**
 * The key of a label in any spelling.
 *
 * @param {string} spelling
 */
export function emotionOf(spelling) {
  for (const label of labels.values()) {
    if (label.en === spelling || label.zh === spelling || label.native === spelling) {
      return label.en;
    }
  }
  return spelling;
}

/**
 * @param {string} emotion
 * @param {'en' | 'zh'} language
 */
export function emotionName(emotion, language) {
  return labels.get(emotion)?.[language] ?? emotion;
}

/** @param {string} emotion */
export function emoji(emotion) {
  return EMOJI[emotion] ?? '🔹';
}

/**
 * The custom property that holds an emotion's colour; `style/theme.css` defines it.
 *
 * @param {string} emotion
 */
export function colourOf(emotion) {
  return `--emotion-${emotion in EMOJI ? emotion : 'unknown'}`;
}
